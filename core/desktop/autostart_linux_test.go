package desktop_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/desktop"
)

// own is this user's entry; each test begins without one.
func own(t *testing.T) string {
	t.Helper()
	home := os.Getenv("HOME")
	for _, dir := range []string{".config", ".local", "xdg", "apps"} {
		must(t, os.RemoveAll(filepath.Join(home, dir)))
	}
	return filepath.Join(home, ".config", "autostart", desktop.ID+".desktop")
}

func put(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(file), 0o755))
	must(t, os.WriteFile(file, []byte(text), mode))
}

// share makes an entry for all users.
func share(t *testing.T, lines ...string) (file string) {
	t.Helper()
	file = filepath.Join(os.Getenv("XDG_CONFIG_DIRS"), "autostart", desktop.ID+".desktop")
	put(t, file, "[Desktop Entry]\nType=Application\nName=Agent\n"+strings.Join(lines, "\n")+"\n", 0o644)
	return file
}

// program makes one that writes down what it was started with.
func program(t *testing.T, path string) string {
	t.Helper()
	file := filepath.Join(os.Getenv("HOME"), "apps", path)
	put(t, file, `#!/bin/sh
for arg in "$0" "$@"; do printf '%s\0' "$arg"; done >"$HOME/apps/told.new"
mv "$HOME/apps/told.new" "$HOME/apps/told"
`, 0o755)
	return file
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	return string(text)
}

func check(t *testing.T, a *desktop.Autostart, want desktop.State) {
	t.Helper()
	got, err := a.State(t.Context())
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The entry is looked at by the specification's own checker, started by GLib, which most desktops
// do, and made a unit by systemd, which the others do.
func TestOthersStartWhatWasMeant(t *testing.T) {
	gio := need(t, "gio", "libglib2.0-bin")
	generator := need(t, "/usr/lib/systemd/user-generators/systemd-xdg-autostart-generator", "systemd")
	for _, tt := range []struct {
		name, program string
		args          []string
	}{
		{"plain", "agent", []string{"tray", "--autostart"}},
		{"no arguments", "agent", nil},
		{"spaces", "my programs/the agent", []string{"--config", "/home/my files/agent.yaml"}},
		{"quotation marks", "agent", []string{`"`, `a"b`, `""`, "it's"}},
		{"percent", "agent", []string{"100%", "%f", "%%", "%u x"}},
		{"shell", "a;b&c|d(e)<f>*?/agent", []string{"*", "?", "#", "(x)", "<in", ">out", ";", "&&", "a~"}},
		{"empty", "agent", []string{"", "x"}},
		{"equals sign", "a=b/agent", []string{"--set=x"}},
		{"letters", "Rechner für Öl/日本", []string{"日本"}},
		{"tilde", "~/~", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := own(t)
			program := program(t, tt.program)
			a := desktop.NewAutostart(desktop.AutostartOptions{Program: program, Args: tt.args, Icon: []byte("a picture")})
			must(t, a.Enable(t.Context()))
			check(t, a, desktop.State{On: true, Program: program})

			validated(t, file)
			want := append([]string{program}, tt.args...)
			if diff := cmp.Diff(want, launched(t, gio, file)); diff != "" {
				t.Errorf("GLib starts (-want +got):\n%s%s", diff, read(t, file))
			}
			if diff := cmp.Diff(want, unitCommand(t, generator)); diff != "" {
				t.Errorf("systemd starts (-want +got):\n%s%s", diff, read(t, file))
			}
		})
	}
}

// validated asks the specification's own checker.
func validated(t *testing.T, file string) {
	t.Helper()
	out, err := exec.Command(need(t, "desktop-file-validate", "desktop-file-utils"), file).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("desktop-file-validate: %v\n%s", err, out)
	}
}

func launched(t *testing.T, gio, file string) []string {
	t.Helper()
	if out, err := exec.Command(gio, "launch", file).CombinedOutput(); err != nil {
		t.Fatalf("gio launch: %v\n%s", err, out)
	}
	told := filepath.Join(os.Getenv("HOME"), "apps", "told")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if text, err := os.ReadFile(told); err == nil {
			return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
		}
		if time.Now().After(deadline) {
			t.Fatal("gio has started nothing")
		}
	}
}

// unitCommand is what systemd makes of the entry, after it has found that unit good.
func unitCommand(t *testing.T, generator string) []string {
	t.Helper()
	units := t.TempDir()
	said, err := exec.Command(generator, units, units, units).CombinedOutput()
	files, _ := filepath.Glob(filepath.Join(units, "*.service"))
	if err != nil || len(files) != 1 {
		t.Fatalf("systemd makes %d units of it: %v\n%s", len(files), err, said)
	}
	verify := exec.Command("systemd-analyze", "verify", "--user", "--man=no", files[0])
	verify.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+units)
	if said, err := verify.CombinedOutput(); err != nil || strings.Contains(string(said), files[0]) {
		t.Errorf("systemd would not start it: %v\n%s", err, said)
	}
	_, line, _ := strings.Cut(read(t, files[0]), "\nExecStart=:")
	line, _, _ = strings.Cut(line, "\n")
	return words(line)
}

// words splits the command of a unit.
func words(line string) (words []string) {
	var word strings.Builder
	quoted := false
	for i := 0; i <= len(line); i++ {
		switch {
		case i == len(line), line[i] == ' ' && !quoted:
			words = append(words, word.String())
			word.Reset()
		case line[i] == '"':
			quoted = !quoted
		case line[i] == '\\', line[i] == '%':
			i++
			word.WriteByte(line[i])
		default:
			word.WriteByte(line[i])
		}
	}
	return words
}

func TestEntryOnDisk(t *testing.T) {
	file := own(t)
	program := program(t, "agent")
	a := desktop.NewAutostart(desktop.AutostartOptions{Program: program, Args: []string{"tray"}, Icon: []byte("a picture")})
	check(t, a, desktop.State{})
	must(t, a.Enable(t.Context()))
	icon := filepath.Join(os.Getenv("HOME"), ".local/share/icons/hicolor/256x256/apps", desktop.ID+".png")
	want := `[Desktop Entry]
Type=Application
Version=1.0
Name=DistributedCompute Agent
Comment=Rents out this machine's GPUs
Exec=` + program + ` tray
TryExec=` + program + `
Icon=` + icon + `
Terminal=false
NoDisplay=true
StartupNotify=false
X-GNOME-Autostart-enabled=true
`
	if diff := cmp.Diff(want, read(t, file)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := read(t, icon); got != "a picture" {
		t.Errorf("the icon holds %q", got)
	}
	for path, want := range map[string]os.FileMode{file: 0o644, filepath.Dir(file): 0o755 | os.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	must(t, a.Disable(t.Context()))
	must(t, a.Disable(t.Context()))
	check(t, a, desktop.State{})
	for _, path := range []string{file, icon} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}

func TestWhatOthersSwitchIsRead(t *testing.T) {
	file := own(t)
	program := program(t, "agent")
	a := desktop.NewAutostart(desktop.AutostartOptions{Program: program})
	for line, on := range map[string]bool{
		"Hidden=true":                                false,
		"Hidden=false":                               true,
		"X-GNOME-Autostart-enabled=false":            false,
		"X-GNOME-Autostart-enabled = false":          false,
		"# Hidden=true":                              true,
		"[Desktop Action quit]\nHidden=true":         true,
		"[Other]\nX=1\n[Desktop Entry]\nHidden=true": false,
	} {
		put(t, file, "[Desktop Entry]\nExec="+program+"\n"+line+"\n", 0o644)
		check(t, a, desktop.State{On: on, Program: program})
		before := read(t, file)
		moved := desktop.NewAutostart(desktop.AutostartOptions{Program: "/bin/sh"})
		must(t, moved.Refresh(t.Context()))
		if changed := read(t, file) != before; changed != on {
			t.Errorf("%q: refreshed %v", line, changed)
		}
	}
	// Who switches it on here means it.
	must(t, a.Enable(t.Context()))
	check(t, a, desktop.State{On: true, Program: program})
}

func TestEntriesThatStartNothingSayWhy(t *testing.T) {
	file := own(t)
	a := desktop.NewAutostart(desktop.AutostartOptions{Program: program(t, "agent"), Args: []string{"tray"}})
	for text, want := range map[string]string{
		"Exec=/no/such/agent tray": "starting with the session is on, but for /no/such/agent, which is not there any more; switch it on again",
		`Exec="half`:               "starting with the session is on, but for a command that cannot be read; switch it on again",
		"":                         "starting with the session is on, but for a command that cannot be read; switch it on again",
	} {
		put(t, file, "[Desktop Entry]\n"+text+"\n", 0o644)
		state, err := a.State(t.Context())
		if err != nil || state.On || state.Blocked != want {
			t.Errorf("%q: got %+v, %v", text, state, err)
		}
		must(t, a.Refresh(t.Context()))
		if state, err := a.State(t.Context()); err != nil || !state.On {
			t.Errorf("%q refreshed: got %+v, %v", text, state, err)
		}
	}
}

func TestEntryForAllUsersIsMasked(t *testing.T) {
	file := own(t)
	program := program(t, "agent")
	elsewhere := share(t, "Exec="+program+" tray")
	a := desktop.NewAutostart(desktop.AutostartOptions{Program: program, Args: []string{"tray"}})
	on := desktop.State{On: true, Program: program, Elsewhere: elsewhere}
	check(t, a, on)

	must(t, a.Disable(t.Context()))
	check(t, a, desktop.State{Elsewhere: elsewhere})
	validated(t, file)
	must(t, a.Refresh(t.Context()))
	check(t, a, desktop.State{Elsewhere: elsewhere})

	// The same again is the package's own; another is the user's.
	must(t, a.Enable(t.Context()))
	check(t, a, on)
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the user has an entry that says the same: %v", err)
	}
	must(t, desktop.NewAutostart(desktop.AutostartOptions{Program: program, Args: []string{"start"}}).Enable(t.Context()))
	if text := read(t, file); !strings.Contains(text, "Exec="+program+" start\n") {
		t.Errorf("the user's entry:\n%s", text)
	}
	check(t, a, on)

	share(t, "Exec="+program+" tray", "Hidden=true")
	must(t, a.Disable(t.Context()))
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is hidden for all is masked: %v", err)
	}
}

func TestRefresh(t *testing.T) {
	file := own(t)
	old, args := program(t, "1.0/agent"), []string{"tray", "--config", "/my config"}
	must(t, desktop.NewAutostart(desktop.AutostartOptions{Program: old, Args: args}).Enable(t.Context()))
	moved := filepath.Join(os.Getenv("HOME"), "apps", "agent")
	must(t, os.Rename(old, moved))

	temporary := filepath.Join(t.TempDir(), "agent")
	put(t, temporary, "", 0o755)
	link := filepath.Join(os.Getenv("HOME"), "apps", "link")
	must(t, os.Symlink(moved, link))
	another := program(t, "2.0/agent")
	before := read(t, file)
	for _, tt := range []struct{ program, want string }{
		{temporary, old},
		{program(t, "go-build/ab/agent"), old},
		{link, link},
		{moved, link}, // the link leads to the program after its updates too
		{another, another},
	} {
		other := desktop.NewAutostart(desktop.AutostartOptions{Program: tt.program, Args: []string{"tray"}})
		unchanged := read(t, file)
		must(t, other.Refresh(t.Context()))
		if read(t, file) != unchanged {
			t.Errorf("%s: another agent's entry was taken over", tt.program)
		}
		a := desktop.NewAutostart(desktop.AutostartOptions{Program: tt.program, Args: args})
		must(t, a.Refresh(t.Context()))
		if diff := cmp.Diff(strings.ReplaceAll(before, old, tt.want), read(t, file)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.program, diff)
		}
	}
	info, err := os.Stat(file)
	must(t, err)
	must(t, desktop.NewAutostart(desktop.AutostartOptions{Program: another, Args: args}).Refresh(t.Context()))
	if again, err := os.Stat(file); err != nil || !os.SameFile(info, again) {
		t.Errorf("the entry was written without need: %v", err)
	}

	must(t, os.Remove(file))
	must(t, desktop.NewAutostart(desktop.AutostartOptions{Program: link, Args: args}).Refresh(t.Context()))
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("refreshing has switched it on: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	file := own(t)
	good := program(t, "agent")
	for _, tt := range []struct {
		program string
		args    []string
		want    string
	}{
		{program(t, "50%/agent"), nil, "holds a %, with which some desktops do not start a program: move it"},
		{program(t, "$x/agent"), nil, "holds a $"},
		{program(t, "`x`/agent"), nil, "holds a `"},
		{program(t, "it's/agent"), nil, "holds a '"},
		{program(t, `"x"/agent`), nil, `holds a "`},
		{program(t, `a\b/agent`), nil, `holds a \`},
		{program(t, "a=b"), nil, "the program's name a=b holds an =, with which desktops do not start it: rename it"},
		{program(t, "a\nb"), nil, "holds a character that no command can be recorded with"},
		{program(t, "a\xffb"), nil, "holds a character that no command can be recorded with"},
		{good, []string{"a\x00b"}, "holds a character that no command can be recorded with"},
		{good, []string{"$HOME"}, "$HOME holds a $, which some desktops change"},
		{good, []string{`a\b`}, `a\b holds a \`},
		{good, []string{"`id`"}, "holds a `"},
		{good, []string{"~/agent.yaml"}, "begins with a ~, which some desktops change: give the whole path"},
		{"agent", nil, "agent is not an absolute path"},
		{filepath.Dir(good), nil, "is not a program"},
		{filepath.Join(filepath.Dir(good), "missing"), nil, "no such file"},
		{"", nil, "the program lies among temporary files"}, // this test: go has built it
	} {
		a := desktop.NewAutostart(desktop.AutostartOptions{Program: tt.program, Args: tt.args})
		err := a.Enable(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q %q: got %v", tt.program, tt.args, err)
		}
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refusal has left an entry: %v", err)
	}
}

// Without Program the one that runs is recorded, as a person would start it again.
func TestProgramThatRuns(t *testing.T) {
	if os.Getenv("DESKTOP_TEST_ENABLE") != "" {
		must(t, desktop.NewAutostart(desktop.AutostartOptions{}).Enable(t.Context()))
		return
	}
	apps := filepath.Join(os.Getenv("HOME"), "apps")
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	for _, tt := range []struct {
		name, start, want string
		environ           []string
	}{
		{name: "itself", start: "1.0/agent", want: "1.0/agent"},
		{name: "by a link", start: "agent", want: "agent"},
		{name: "image", start: "1.0/agent", want: "agent.AppImage", environ: []string{"APPIMAGE=" + apps + "/agent.AppImage", "APPDIR=" + apps + "/1.0"}},
		{name: "another's image", start: "1.0/agent", want: "1.0/agent", environ: []string{"APPIMAGE=" + apps + "/agent.AppImage", "APPDIR=" + apps + "/2.0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			own(t)
			put(t, filepath.Join(apps, "1.0/agent"), string(self), 0o755)
			put(t, filepath.Join(apps, "agent.AppImage"), "", 0o755)
			must(t, os.Symlink("1.0/agent", filepath.Join(apps, "agent")))
			cmd := exec.Command(filepath.Join(apps, tt.start), "-test.run=^TestProgramThatRuns$")
			cmd.Env = append(append(os.Environ(), "DESKTOP_TEST_ENABLE=1"), tt.environ...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			check(t, desktop.NewAutostart(desktop.AutostartOptions{}), desktop.State{On: true, Program: filepath.Join(apps, tt.want)})
		})
	}
}

// Root is made by a namespace of its own: inside it this user is root.
func TestRootHasNoDesktop(t *testing.T) {
	if os.Getenv("DESKTOP_TEST_ROOT") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestRootHasNoDesktop$", "-test.v")
		cmd.Env = append(os.Environ(), "DESKTOP_TEST_ROOT=1", "DISPLAY=:0")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
			t.Skipf("this kernel gives no namespaces to users: %v", err)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	file := own(t)
	a := desktop.NewAutostart(desktop.AutostartOptions{Program: program(t, "agent")})
	for name, err := range map[string]error{
		"enable": a.Enable(t.Context()), "disable": a.Disable(t.Context()), "page": desktop.OpenURL(t.Context(), "https://example.com"),
		"file": desktop.OpenFile(t.Context(), "/etc/hosts"), "can open": desktop.CanOpen(),
	} {
		if !errors.Is(err, desktop.ErrRoot) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	must(t, a.Refresh(t.Context()))
	if state, err := a.State(t.Context()); err != nil || state.On || !strings.Contains(state.Blocked, "use the systemd unit distributed-agent.service") {
		t.Errorf("state: got %+v, %v", state, err)
	}
	if _, err := os.Stat(filepath.Dir(file)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written: %v", err)
	}
}
