//go:build linux || freebsd || openbsd || netbsd

package tray

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"fyne.io/systray"
	"github.com/godbus/dbus/v5"

	"github.com/distributedcompute/host-agent/assets"
)

// watcher is who shows tray icons.
const watcher = "org.kde.StatusNotifierWatcher"

// A bus may take connections and stay silent; godbus and systray would wait for it without end.
const (
	busBound = 5 * time.Second // for the bus to take the connection, and again to take the icon
	endBound = 3 * time.Second // for all to come to its end
)

// desktop is the session's bus.
type desktop struct{ bus *dbus.Conn }

// openScreen finds the session's bus, without which systray neither works nor ends. It must be there:
// a bus started for the occasion would have no panel on it, and would be left behind.
func openScreen(ctx context.Context, log *slog.Logger) (*screen, error) {
	ctx, cancel := context.WithTimeout(ctx, busBound)
	defer cancel()
	s := newScreen(log)
	var err error
	if !within(ctx, func() { s.bus, err = connect(ctx) }) || ctx.Err() != nil {
		return nil, fmt.Errorf("connecting to the desktop's session bus, which does not answer: %w", ErrNoScreen)
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to the desktop's session bus: %w (%w)", ErrNoScreen, err)
	}
	return s, nil
}

// connect gives the connection that systray will use. One of its own goes first, which ends with ctx: whoever
// waits for the shared one holds a lock that every other user of the bus needs.
func connect(ctx context.Context) (*dbus.Conn, error) {
	probe, err := dbus.SessionBusPrivateNoAutoStartup(dbus.WithContext(ctx)) // makes the address known that it finds
	if err != nil {
		return nil, err
	}
	defer probe.Close()
	if err := probe.Auth(nil); err != nil {
		return nil, err
	}
	if err := probe.Hello(); err != nil {
		return nil, err
	}
	return dbus.SessionBus()
}

// within reports whether f returns before ctx ends; else nobody waits for it any more.
func within(ctx context.Context, f func()) bool {
	done := make(chan struct{})
	go func() {
		f()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *screen) show(ctx context.Context, body func() error) error {
	registerStraight()
	systray.SetTitle(name) // first: desktops remember the icon by it
	setIcon(assets.Offline)
	start, end := systray.RunWithExternalLoop(nil, nil)
	bounded, cancel := context.WithTimeout(ctx, busBound)
	defer cancel()
	if !within(bounded, start) {
		go s.bus.Close() // or the icon could still come, and nobody would attend to it
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("showing the icon to the desktop's session bus, which does not answer: %w", ErrNoScreen)
	}
	over, gone := make(chan error, 1), make(chan struct{})
	go func() {
		over <- s.attend(body)
		s.end(end)
		close(gone)
	}()
	var err error
	select {
	case err = <-over:
	case <-ctx.Done():
	}
	select {
	case <-gone:
	case <-time.After(endBound):
		s.log.Warn("removing the tray icon; the desktop's session bus did not answer in time")
	}
	return err
}

// end takes the icon away. Systray panics where it could not connect, which must not end the agent.
func (s *screen) end(end func()) {
	defer func() {
		if r := recover(); r != nil {
			s.log.Warn("removing the tray icon", "panic", r)
		}
	}()
	end()
}

func (s *screen) lost() <-chan struct{} { return s.bus.Context().Done() }

func (s *screen) unseen() string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var there bool
	err := s.bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, watcher).Store(&there)
	switch {
	case err != nil || there:
		return ""
	case strings.Contains(strings.ToUpper(os.Getenv("XDG_CURRENT_DESKTOP")), "GNOME"):
		return "GNOME shows such icons with the extension AppIndicator: install the package gnome-shell-extension-appindicator, log out and in again, and turn it on in Extensions. The agent works meanwhile."
	}
	return "This desktop has no panel that shows status icons (StatusNotifierItem): add a status tray to its panel. The agent works meanwhile."
}

func setIcon(state assets.State) { systray.SetIcon(straight(assets.Icon(state))) }

// escape writes what a panel would take for the mark of an access key.
func escape(title string) string { return strings.ReplaceAll(title, "_", "__") }
