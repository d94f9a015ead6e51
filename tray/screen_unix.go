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

// desktop is the session's bus.
type desktop struct{ bus *dbus.Conn }

// openScreen finds the session's bus, without which systray neither works nor ends. It must be there:
// a bus started for the occasion would have no panel on it, and would be left behind.
func openScreen(_ context.Context, log *slog.Logger) (*screen, error) {
	probe, err := dbus.SessionBusPrivateNoAutoStartup() // makes the address known that it finds
	if err != nil {
		return nil, fmt.Errorf("looking for the desktop's session bus: %w (%w)", ErrNoScreen, err)
	}
	probe.Close()
	bus, err := dbus.SessionBus() // the one that systray will use
	if err != nil {
		return nil, fmt.Errorf("connecting to the desktop's session bus: %w (%w)", ErrNoScreen, err)
	}
	s := newScreen(log)
	s.bus = bus
	return s, nil
}

func (s *screen) show(_ context.Context, body func() error) error {
	registerStraight()
	systray.SetTitle(name) // first: desktops remember the icon by it
	setIcon(assets.Offline)
	start, end := systray.RunWithExternalLoop(nil, nil)
	start()
	defer s.end(end)
	return s.attend(body)
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
