//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"image/png"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/assets"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/trayhost"
)

// person is an ordinary user: root has no desktop, and the agent opens no browser for it.
const person = 65534

// desk is a world whose agent runs for a person, with a desktop around it: a session bus, a panel, a
// screen with a clipboard. The browser alone is a stand-in; it writes down what it is sent to.
type desk struct {
	*world
	bus   *trayhost.Bus
	panel *trayhost.Panel
	icon  *trayhost.Icon
	home  string
	sent  string // file with the addresses the browser was sent to, one a line
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "desk-") // not t.TempDir, into which only root gets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &desk{world: newWorld(t, options{signedOut: true, dir: filepath.Join(dir, "market")})}
	d.home, d.sent = filepath.Join(dir, "home"), filepath.Join(dir, "home", "sent")
	bin, runtime, temp := filepath.Join(dir, "bin"), filepath.Join(dir, "run"), filepath.Join(dir, "tmp")
	for _, folder := range []string{d.home, bin, runtime, temp} {
		d.must(os.Mkdir(folder, 0o700))
	}
	browser := fmt.Sprintf("#!/bin/sh\necho \"$1\" >> '%s'\n", d.sent)
	d.must(os.WriteFile(filepath.Join(bin, "xdg-open"), []byte(browser), 0o755))

	d.bus, err = trayhost.StartBus()
	d.must(err)
	t.Cleanup(d.bus.Close)
	d.panel, err = trayhost.OpenPanel(d.bus.Address)
	d.must(err)
	t.Cleanup(d.panel.Close)
	d.must(d.panel.ShowNotifications())

	d.must(os.Chmod(dir, 0o711))
	d.must(filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		return os.Chown(path, person, person)
	}))
	d.user = person
	d.env = append(d.env,
		"TMPDIR="+temp, // a program in the usual place for passing files would not be started at login
		"HOME="+d.home, "XDG_RUNTIME_DIR="+runtime, "DBUS_SESSION_BUS_ADDRESS="+d.bus.Address, "DISPLAY="+screen(t),
		"PATH="+bin+":"+os.Getenv("PATH"), "XDG_CONFIG_HOME=", "XDG_DATA_HOME=", "XDG_STATE_HOME=", "WAYLAND_DISPLAY=", "CREDENTIALS_DIRECTORY=", "SSH_CONNECTION=",
	)
	return d
}

// screen starts an X server and returns its display.
func screen(t *testing.T) string {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	server := exec.Command("Xvfb", "-noreset", "-displayfd", "3", "-screen", "0", "640x480x24", "-nolisten", "tcp", "-ac")
	server.ExtraFiles = []*os.File{write}
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		t.Fatalf("starting a screen: %v (apt-get install xvfb)", err)
	}
	write.Close()
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	var number int
	if _, err := fmt.Fscan(read, &number); err != nil {
		t.Fatalf("reading the screen's number: %v", err)
	}
	return fmt.Sprintf(":%d", number)
}

// show starts the tray, with its agent unless one is running, and waits for the icon.
func (d *desk) show() *process {
	d.t.Helper()
	d.must(d.panel.Empty(d.within())) // the one before has gone
	p := d.process("tray", "--config", d.Config())
	icon, err := d.panel.Icon(d.within())
	d.must(err)
	d.icon = icon
	return p
}

// click clicks an entry of the menu, once that is as a person finds it who does not click in the middle of a change.
func (d *desk) click(labels ...string) {
	d.t.Helper()
	_, err := d.panel.Quiet(d.within(), 200*time.Millisecond)
	d.must(err)
	d.must(d.icon.Click(d.within(), labels...))
}

// sees waits until the menu has all of these words.
func (d *desk) sees(words ...string) trayhost.Look {
	d.t.Helper()
	look, err := d.icon.AwaitMenu(d.within(), words...)
	d.must(err)
	return look
}

// looks waits until the icon is that of a state, to the pixel, and the tooltip has the words.
func (d *desk) looks(state assets.State, tooltip string) {
	d.t.Helper()
	want, err := png.Decode(bytes.NewReader(assets.Icon(state)))
	d.must(err)
	_, err = d.icon.Await(d.within(), func(l trayhost.Look) bool {
		if l.Image == nil || l.Image.Bounds() != want.Bounds() || !strings.Contains(l.Tooltip, tooltip) {
			return false
		}
		for y := range want.Bounds().Dy() {
			for x := range want.Bounds().Dx() {
				r, g, b, a := want.At(x, y).RGBA()
				gr, gg, gb, ga := l.Image.At(x, y).RGBA()
				if a>>8 != ga>>8 || near(r, gr) || near(g, gg) || near(b, gb) {
					return false
				}
			}
		}
		return true
	})
	if err != nil {
		d.t.Fatalf("icon %s with %q: %v", state, tooltip, err)
	}
}

// near reports a difference that no rounding of half-transparent colours makes.
func near(a, b uint32) bool { return max(a, b)-min(a, b) > 0x200 }

// browsed waits until the browser has been sent to an address that begins so, and returns the newest.
func (d *desk) browsed(prefix string) string {
	d.t.Helper()
	var found string
	d.eventually("the browser is sent to "+prefix+"…", func() bool {
		content, _ := os.ReadFile(d.sent)
		for line := range strings.Lines(string(content)) {
			if strings.HasPrefix(line, prefix) {
				found = strings.TrimSpace(line)
			}
		}
		return found != ""
	})
	return found
}

// forget clears what the browser was sent to.
func (d *desk) forget() {
	d.t.Helper()
	if err := os.Remove(d.sent); err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
}

// clipboard is what was copied.
func (d *desk) clipboard() string {
	d.t.Helper()
	cmd := exec.Command("xclip", "-o", "-selection", "clipboard")
	cmd.Env = d.env
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// ended waits until a process has ended, with this exit code.
func (d *desk) ended(p *process, code int) {
	d.t.Helper()
	select {
	case <-p.done:
	case <-d.within().Done():
		d.t.Fatalf("the process has not ended; its log:\n%s", p.log.String())
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		d.t.Fatalf("exit code %d, want %d; its log:\n%s", got, code, p.log.String())
	}
}

// notice has the marketplace tell the owner something.
func (d *desk) notice(title, body string) {
	d.t.Helper()
	result, err := d.Backend.Command(d.within(), d.node, protocol.Notice{Title: title, Body: body})
	d.must(err)
	if !result.OK {
		d.t.Fatalf("notice refused: %v", result.Error)
	}
}
