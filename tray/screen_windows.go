package tray

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"fyne.io/systray"
	"golang.org/x/sys/windows"

	"github.com/distributedcompute/host-agent/assets"
)

const (
	iconBound = 10 * time.Second // for the taskbar to take the icon
	endBound  = 3 * time.Second  // for systray to come to its end
)

type desktop struct{}

// openScreen waits for the taskbar: at log-on it may come later than the agent, and systray does not
// try again.
func openScreen(ctx context.Context, log *slog.Logger) (*screen, error) {
	for waited := false; !taskbar(); waited = true {
		if !waited {
			log.Info("waiting for the taskbar")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
	return newScreen(log), nil
}

func taskbar() bool {
	class, err := windows.UTF16PtrFromString("Shell_TrayWnd")
	if err != nil {
		return false
	}
	window, _, _ := windows.NewLazySystemDLL("user32.dll").NewProc("FindWindowW").Call(uintptr(unsafe.Pointer(class)), 0)
	return window != 0
}

// show keeps systray's message loop on a thread of its own: where the icon could not be made it never
// comes back, and must not keep the agent from leaving.
func (s *screen) show(ctx context.Context, body func() error) error {
	ready, done := make(chan struct{}), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		systray.Run(func() { close(ready) }, nil)
		close(done)
	}()
	select {
	case <-ready:
	case <-ctx.Done():
		return nil
	case <-time.After(iconBound):
		return fmt.Errorf("the taskbar has not taken the icon: %w", ErrNoScreen)
	}
	defer func() {
		systray.Quit()
		select {
		case <-done:
		case <-time.After(endBound):
			s.log.Warn("removing the tray icon; it did not end in time")
		}
	}()
	return s.attend(body)
}

func (s *screen) lost() <-chan struct{} { return nil }
func (s *screen) unseen() string        { return "" }

func setIcon(state assets.State) { systray.SetIcon(assets.Icon(state)) }

// escape writes what Windows would take for the mark of an access key.
func escape(title string) string { return strings.ReplaceAll(title, "&", "&&") }
