// Package trayhost is the desktop around a tray icon, without a window: a private session bus, the
// panel that shows icons and their menus, and whoever shows notifications. A test sees in it what a
// person would see, and clicks.
package trayhost

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNoDaemon says that this machine has no dbus-daemon.
var ErrNoDaemon = errors.New("dbus-daemon is not installed: apt-get install dbus")

// busConfig is all of the daemon's configuration: no service of the machine is ever started on it.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <keep_umask/>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
`

// Bus is a private session bus.
type Bus struct {
	Address string // for DBUS_SESSION_BUS_ADDRESS

	daemon *exec.Cmd
	dir    string
}

// StartBus starts a bus; ErrNoDaemon where there is no program for it.
func StartBus() (*Bus, error) {
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		return nil, ErrNoDaemon
	}
	dir, err := os.MkdirTemp("", "bus-") // short: the length of a socket's path is bounded
	if err != nil {
		return nil, fmt.Errorf("making the bus's directory: %w", err)
	}
	b := &Bus{dir: dir}
	// The program in the test may be another user's.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, fmt.Errorf("opening the bus's directory: %w", err)
	}
	if err := b.start(program); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Bus) start(program string) error {
	config := filepath.Join(b.dir, "session.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, filepath.Join(b.dir, "bus")), 0o600); err != nil {
		return fmt.Errorf("writing the bus's configuration: %w", err)
	}
	daemon := exec.Command(program, "--config-file="+config, "--nofork", "--nopidfile", "--print-address=1")
	said, err := daemon.StdoutPipe()
	if err != nil {
		return fmt.Errorf("starting dbus-daemon: %w", err)
	}
	if err := daemon.Start(); err != nil {
		return fmt.Errorf("starting dbus-daemon: %w", err)
	}
	b.daemon = daemon
	address, err := bufio.NewReader(said).ReadString('\n')
	if err != nil {
		return fmt.Errorf("reading the bus's address: %w", err)
	}
	b.Address = strings.TrimSpace(address)
	return nil
}

// Close ends the bus, as a log-out does. It may be called again.
func (b *Bus) Close() {
	if b.daemon != nil {
		b.daemon.Process.Kill()
		b.daemon.Wait()
		b.daemon = nil
	}
	os.RemoveAll(b.dir)
}
