package desktop_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/windows/registry"

	"github.com/distributedcompute/host-agent/core/desktop"
)

const (
	runKey      = `Software\Microsoft\Windows\CurrentVersion\Run`
	approvedKey = `Software\Microsoft\Windows\CurrentVersion\Explorer\StartupApproved\Run`
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// key opens one of the user's keys and takes the agent's value out of it until the test has ended.
func key(t *testing.T, path string) registry.Key {
	t.Helper()
	key, _, err := registry.CreateKey(registry.CURRENT_USER, path, registry.ALL_ACCESS)
	must(t, err)
	t.Cleanup(func() { key.Close() })
	size, kind, err := key.GetValue(desktop.ID, nil)
	if err == nil {
		before := make([]byte, size)
		_, _, err = key.GetValue(desktop.ID, before)
		must(t, err)
		if kind == registry.BINARY {
			t.Cleanup(func() { key.SetBinaryValue(desktop.ID, before) })
		} else {
			text, _, err := key.GetStringValue(desktop.ID)
			must(t, err)
			t.Cleanup(func() { key.SetStringValue(desktop.ID, text) })
		}
	}
	t.Cleanup(func() { key.DeleteValue(desktop.ID) })
	key.DeleteValue(desktop.ID)
	return key
}

func program(t *testing.T, path ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "desktop-test")
	must(t, err)
	file := filepath.Join(append([]string{dir}, path...)...)
	t.Cleanup(func() { // t.TempDir asks for more than Wine 8 does when it removes
		for path := file; len(path) >= len(dir); path = filepath.Dir(path) {
			os.Remove(path)
		}
	})
	must(t, os.MkdirAll(filepath.Dir(file), 0o700))
	must(t, os.WriteFile(file, nil, 0o600))
	return file
}

func check(t *testing.T, a *desktop.Autostart, want desktop.State) {
	t.Helper()
	got, err := a.State(t.Context())
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
}

func TestRunKey(t *testing.T) {
	run := key(t, runKey)
	key(t, approvedKey)
	console := program(t, "My Programs", "distributed-agent.exe")
	t.Setenv("TMP", `C:\elsewhere`) // what lies among temporary files is not recorded
	a := desktop.NewAutostart(desktop.AutostartOptions{Program: console, Args: []string{"tray", "--config", `C:\my files\`, `a"b`, ""}})
	check(t, a, desktop.State{})
	must(t, a.Enable(t.Context()))
	line, _, err := run.GetStringValue(desktop.ID)
	if want := `"` + console + `" tray --config "C:\my files\\" a\"b ""`; err != nil || line != want {
		t.Errorf("Windows runs %s, %v; want %s", line, err, want)
	}
	check(t, a, desktop.State{On: true, Program: console})

	// The same program without a console window goes first, and moving keeps the arguments.
	window := strings.TrimSuffix(console, ".exe") + "w.exe"
	must(t, os.WriteFile(window, nil, 0o600))
	must(t, desktop.NewAutostart(desktop.AutostartOptions{Program: console, Args: []string{"tray", "--config", `C:\my files\`, `a"b`, ""}}).Refresh(t.Context()))
	again, _, err := run.GetStringValue(desktop.ID)
	if want := strings.ReplaceAll(line, console, window); err != nil || again != want {
		t.Errorf("Windows runs %s, %v; want %s", again, err, want)
	}
	must(t, os.Remove(window))
	state, err := a.State(t.Context())
	if err != nil || state.On || !strings.Contains(state.Blocked, "is not there any more") {
		t.Errorf("got %+v, %v", state, err)
	}

	must(t, a.Disable(t.Context()))
	must(t, a.Disable(t.Context()))
	if _, _, err := run.GetStringValue(desktop.ID); !errors.Is(err, registry.ErrNotExist) {
		t.Errorf("the value is still there: %v", err)
	}
	must(t, a.Refresh(t.Context()))
	check(t, a, desktop.State{})
}

func TestSwitchInTaskManagerIsTheUsers(t *testing.T) {
	key(t, runKey)
	approved := key(t, approvedKey)
	program := program(t, "distributed-agent.exe")
	t.Setenv("TMP", `C:\elsewhere`)
	a := desktop.NewAutostart(desktop.AutostartOptions{Program: program})
	must(t, a.Enable(t.Context()))
	for first, on := range map[byte]bool{2: true, 3: false, 6: true, 7: false} {
		value := []byte{first, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}
		must(t, approved.SetBinaryValue(desktop.ID, value))
		state, err := a.State(t.Context())
		if err != nil || state.On != on || strings.Contains(state.Blocked, "in Task Manager, under Startup apps") == on {
			t.Errorf("%d: got %+v, %v", first, state, err)
		}
		if err := a.Enable(t.Context()); (err == nil) != on {
			t.Errorf("%d: enable says %v", first, err)
		}
		must(t, a.Refresh(t.Context()))
		if got, _, err := approved.GetBinaryValue(desktop.ID); err != nil || !cmp.Equal(got, value) {
			t.Errorf("the user's switch was changed to %v, %v", got, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	run := key(t, runKey)
	program := program(t, "distributed-agent.exe")
	t.Setenv("TMP", `C:\elsewhere`)
	for name, o := range map[string]desktop.AutostartOptions{
		"longer than the 259 characters": {Program: program, Args: []string{strings.Repeat("x", 260)}},
		"no command can be recorded":     {Program: program, Args: []string{"a\nb"}},
		"not an absolute path":           {Program: "distributed-agent.exe"},
	} {
		if err := desktop.NewAutostart(o).Enable(t.Context()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, _, err := run.GetStringValue(desktop.ID); !errors.Is(err, registry.ErrNotExist) {
		t.Errorf("a refusal has left a value: %v", err)
	}
}

func TestAvailable(t *testing.T) {
	if err := desktop.Available(); err != nil {
		t.Error(err)
	}
}
