//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// owner is the user whose desktop it is: nobody's, as root has none.
const owner = 65534

// The screen. The panel lies along its lower edge, with the icon at the right.
const (
	width, height = 1500, 640
	panelHeight   = 32
	panelTop      = height - panelHeight - 1 // it has a border
	// backdrop is no colour of any theme: it becomes transparent.
	backdrop = "#ff00fe"
	// display is reached by the loopback of our own network namespace: a socket and a lock below
	// /tmp would be in the way of screens elsewhere on this machine.
	display = "127.0.0.1:1"
)

// endsWithin is how long a program has to end when it is asked to. A panel whose bus has gone may
// never do it.
const endsWithin = 2 * time.Second

// desktop is a session with a screen, a bus, a window manager and a panel.
type desktop struct {
	dir     string // folder of the session, the owner's home among others
	address string // of the bus
	running []*process
}

// process is a program of the session.
type process struct {
	*exec.Cmd
	ended chan struct{}
}

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <servicedir>%s</servicedir>
  <policy context="default">
    <allow user="root"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
`

const panelConfig = `<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfce4-panel" version="1.0">
  <property name="configver" type="int" value="2"/>
  <property name="panels" type="array">
    <value type="int" value="1"/>
    <property name="dark-mode" type="bool" value="true"/>
    <property name="panel-1" type="empty">
      <property name="position" type="string" value="p=8;x=0;y=0"/>
      <property name="length" type="uint" value="100"/>
      <property name="position-locked" type="bool" value="true"/>
      <property name="icon-size" type="uint" value="22"/>
      <property name="size" type="uint" value="32"/>
      <property name="plugin-ids" type="array">
        <value type="int" value="1"/>
        <value type="int" value="2"/>
        <value type="int" value="3"/>
      </property>
    </property>
  </property>
  <property name="plugins" type="empty">
    <property name="plugin-1" type="string" value="separator">
      <property name="expand" type="bool" value="true"/>
      <property name="style" type="uint" value="0"/>
    </property>
    <property name="plugin-2" type="string" value="clock">
      <property name="digital-layout" type="uint" value="3"/>
      <property name="digital-time-format" type="string" value="%H:%M"/>
      <property name="digital-time-font" type="string" value="Cantarell 11"/>
    </property>
    <property name="plugin-3" type="string" value="systray">
      <property name="square-icons" type="bool" value="true"/>
    </property>
  </property>
</channel>
`

const gtkConfig = `[Settings]
gtk-theme-name=Adwaita
gtk-icon-theme-name=Adwaita
gtk-font-name=Cantarell 11
gtk-xft-antialias=1
gtk-xft-hinting=1
gtk-xft-hintstyle=hintslight
gtk-xft-rgba=none
gtk-xft-dpi=98304
gtk-enable-animations=0
`

// xfconfService lets the bus start the panel's settings, and nothing else that this machine may have.
const xfconfService = "/usr/share/dbus-1/services/org.xfce.Xfconf.service"

func (d *desktop) path(name string) string { return filepath.Join(d.dir, name) }

// env is that of the owner's programs.
func (d *desktop) env() []string {
	return []string{
		"HOME=" + d.path("home"), "USER=nobody", "LOGNAME=nobody", "LC_ALL=C.UTF-8",
		"PATH=" + d.path("bin") + ":" + os.Getenv("PATH"), "TZ=UTC",
		"DISPLAY=" + display, "DBUS_SESSION_BUS_ADDRESS=" + d.address, "XDG_RUNTIME_DIR=" + d.path("run"), "XDG_CURRENT_DESKTOP=XFCE",
		"GTK_A11Y=none", "NO_AT_BRIDGE=1", "GDK_BACKEND=x11",
	}
}

// open starts the session.
func (d *desktop) open(ctx context.Context) error {
	services, xfconf, gtk := d.path("services"), d.path("home/.config/xfce4/xfconf/xfce-perchannel-xml"), d.path("home/.config/gtk-3.0")
	for _, dir := range []string{d.path("run"), d.path("bin"), services, xfconf, gtk} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making the desktop's folders: %w", err)
		}
	}
	for path, content := range map[string]string{
		d.path("bus.conf"):                       fmt.Sprintf(busConfig, d.path("run/bus"), services),
		filepath.Join(xfconf, "xfce4-panel.xml"): panelConfig,
		filepath.Join(gtk, "settings.ini"):       gtkConfig,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return fmt.Errorf("setting the desktop up: %w", err)
		}
	}
	if err := os.Symlink(xfconfService, filepath.Join(services, filepath.Base(xfconfService))); err != nil {
		return fmt.Errorf("setting the desktop up: %w", err)
	}
	if err := give(d.dir); err != nil {
		return err
	}
	d.address = "unix:path=" + d.path("run/bus")
	// The screen is root's, for only root may do without a lock.
	if _, err := d.start(0, nil, "Xvfb", ":1", "-nolock", "-noreset", "-ac", "-listen", "tcp", "-nolisten", "unix", "-nolisten", "local",
		"-screen", "0", fmt.Sprintf("%dx%dx24", width, height)); err != nil {
		return err
	}
	if _, err := d.start(owner, nil, "dbus-daemon", "--config-file="+d.path("bus.conf"), "--nofork", "--nopidfile"); err != nil {
		return err
	}
	if err := until(ctx, "the screen", func() (bool, error) {
		_, err := d.tool(ctx, "xsetroot", "-solid", backdrop)
		return err == nil, err
	}); err != nil {
		return err
	}
	for _, program := range [][]string{{"xfwm4", "--compositor=off"}, {"xfce4-panel", "--disable-wm-check"}} {
		if _, err := d.start(owner, nil, program[0], program[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// give makes the owner of the desktop the owner of a folder and all that is in it.
func give(dir string) error {
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, owner, owner)
	})
	if err != nil {
		return fmt.Errorf("giving %s to the owner of the desktop: %w", dir, err)
	}
	return nil
}

// start starts a program of the session as that user. What it prints goes into a file of its name.
func (d *desktop) start(uid uint32, env []string, name string, args ...string) (*process, error) {
	log, err := os.Create(d.path(filepath.Base(name) + ".log"))
	if err != nil {
		return nil, fmt.Errorf("opening a log: %w", err)
	}
	defer log.Close()
	p := &process{Cmd: exec.Command(name, args...), ended: make(chan struct{})}
	p.Env, p.Dir, p.Stdout, p.Stderr = append(d.env(), env...), d.path("home"), log, log
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := p.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, explained(err))
	}
	d.running = append(d.running, p)
	go func() {
		defer close(p.ended)
		_ = p.Wait()
	}()
	return p, nil
}

// tool runs a program that works on the screen and gives what it prints.
func (d *desktop) tool(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = d.env(), d.path("home")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner, Gid: owner}}
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return nil, fmt.Errorf("running %s: %w", name, explained(err))
	}
	return out, nil
}

// explained says where a program comes from that is not there.
func explained(err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w (`make screenshots` installs it)", err)
	}
	return err
}

// close ends all programs, the newest first.
func (d *desktop) close() {
	for i := len(d.running) - 1; i >= 0; i-- {
		d.running[i].end()
	}
	d.running = nil
}

func (p *process) end() {
	_ = p.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(endsWithin):
		_ = p.Process.Kill()
		<-p.ended
	}
}
