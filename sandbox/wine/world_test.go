//go:build wine

package wine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait for something that has to happen.
const patience = 60 * time.Second

// lab is what all tests share: a prefix takes 10 s and 700 MB.
type lab struct {
	dir    string // everything below; the programs in bin
	prefix string
}

var shared lab

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wine-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "wine:", err)
		os.Exit(1)
	}
	code := 1
	shared = lab{dir: dir, prefix: filepath.Join(dir, "prefix")}
	if err := shared.set(); err != nil {
		fmt.Fprintln(os.Stderr, "wine:", err)
	} else {
		code = m.Run()
	}
	shared.command("wineserver", "--kill").Run() // this prefix's programs, if any is left
	shared.command("wineserver", "--wait").Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// set makes the prefix and builds the programs.
func (l *lab) set() error {
	for program, pkg := range map[string]string{"wine": "wine wine64", "Xvfb": "xvfb", "import": "imagemagick"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed: apt-get install --no-install-recommends %s", program, pkg)
		}
	}
	for _, built := range []struct{ name, flags, pkg string }{
		{"distributed-agent.exe", "-s -w", "../../app"},
		{"distributed-agentw.exe", "-s -w -H=windowsgui", "../../app"},
		{"doorstop.exe", "-s -w", "./doorstop"},
	} {
		if err := compile("build", "-ldflags", built.flags, "-o", l.program(built.name), built.pkg); err != nil {
			return err
		}
	}
	if out, err := l.command("wineboot", "--init").CombinedOutput(); err != nil {
		return fmt.Errorf("making a Wine prefix: %w\n%s", err, out)
	}
	if err := l.command("wineserver", "--wait").Run(); err != nil { // it writes the registry on leaving
		return fmt.Errorf("making a Wine prefix: %w", err)
	}
	if err := os.WriteFile(filepath.Join(l.prefix, "drive_c/windows/system32/bcryptprimitives.dll"), prngDLL(), 0o600); err != nil {
		return fmt.Errorf("putting a library into the Wine prefix: %w", err)
	}
	return l.boot()
}

// boot starts Wine anew. It stays: else every program that runs alone would start and end all of it.
func (l *lab) boot() error {
	l.command("wineserver", "--kill").Run() // an error is that none runs
	if err := l.command("wineserver", "--wait").Run(); err != nil {
		return fmt.Errorf("waiting for Wine to end: %w", err)
	}
	if err := l.command("wineserver", "--persistent").Run(); err != nil {
		return fmt.Errorf("starting Wine: %w", err)
	}
	return nil
}

func compile(args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (l *lab) program(name string) string { return filepath.Join(l.dir, "bin", name) }

// command is one in the prefix, without a screen.
func (l *lab) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "WINEPREFIX="+l.prefix, "WINEARCH=win64", "WINEDEBUG=-all", "DISPLAY=",
		// No questions about .NET and a browser engine, no entries in the menus of whoever runs the tests.
		"WINEDLLOVERRIDES=mscoree,mshtml=;winemenubuilder.exe=d")
	return cmd
}

// world is one test's Windows session.
type world struct {
	t       *testing.T
	environ []string // for every program
	screen  bool     // there is one
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) eventually(what string, done func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.keep()
			w.t.Fatalf("did not happen within %v: %s", patience, what)
		}
	}
}

// run runs a program to its end and returns what it said and its exit code.
func (w *world) run(name string, args ...string) (said string, code int) {
	w.t.Helper()
	p := w.start(name, args...)
	code = p.wait()
	return p.said(), code
}

// succeeds runs a program that has to end well.
func (w *world) succeeds(name string, args ...string) string {
	w.t.Helper()
	said, code := w.run(name, args...)
	if code != 0 {
		w.t.Fatalf("%s %q: exit code %d\n%s", filepath.Base(name), args, code, said)
	}
	return said
}

// process is a program that was started.
type process struct {
	w     *world
	name  string
	cmd   *exec.Cmd
	input io.Closer
	ended chan struct{}

	mu     sync.Mutex
	output bytes.Buffer
}

// start starts a Windows program, by its path on this machine or by a name that Wine knows.
func (w *world) start(name string, args ...string) *process {
	w.t.Helper()
	p := &process{w: w, name: filepath.Base(name), cmd: shared.command("wine", append([]string{name}, args...)...), ended: make(chan struct{})}
	p.cmd.Env = append(p.cmd.Env, w.environ...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	// A program of Wine's that stays behind must not be waited for because it has the output open.
	p.cmd.WaitDelay = time.Second
	input, err := p.cmd.StdinPipe()
	w.must(err)
	p.input = input
	w.must(p.cmd.Start())
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	w.t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
		if w.t.Failed() {
			w.t.Logf("%s %q said:\n%s", p.name, args, p.said())
		}
	})
	return p
}

// Write takes what the program says.
func (p *process) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(text)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.ReplaceAll(p.output.String(), "\r\n", "\n")
}

// wait returns the exit code of a program that has to end.
func (p *process) wait() int {
	p.w.t.Helper()
	ctx, cancel := context.WithTimeout(p.w.t.Context(), patience)
	defer cancel()
	select {
	case <-p.ended:
	case <-ctx.Done():
		p.w.t.Fatalf("%s does not end: %v\n%s", p.name, ctx.Err(), p.said())
	}
	return p.cmd.ProcessState.ExitCode()
}

// windowsPath is a path of this machine as Windows programs see it.
func windowsPath(path string) string { return "Z:" + strings.ReplaceAll(path, "/", `\`) }

// query reads a value of the registry from outside, "" where there is none.
func (w *world) query(key, value string) string {
	w.t.Helper()
	said, code := w.run("reg", "query", key, "/v", value)
	if code != 0 {
		return ""
	}
	for line := range strings.Lines(said) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == value {
			return strings.TrimSpace(strings.SplitN(strings.TrimSpace(line), fields[1], 2)[1])
		}
	}
	w.t.Fatal(errors.New("reg said nothing of the value: " + said))
	return ""
}
