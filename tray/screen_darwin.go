//go:build cgo

package tray

import (
	"context"
	"log/slog"

	"fyne.io/systray"

	"github.com/distributedcompute/host-agent/assets"
)

type desktop struct{}

func openScreen(_ context.Context, log *slog.Logger) (*screen, error) { return newScreen(log), nil }

// show gives the main thread to Cocoa, which takes no other.
func (s *screen) show(_ context.Context, body func() error) error {
	var failed error
	ended := make(chan struct{})
	systray.Run(func() {
		defer close(ended)
		failed = s.attend(body)
		systray.Quit()
	}, nil)
	<-ended
	return failed
}

func (s *screen) lost() <-chan struct{} { return nil }
func (s *screen) unseen() string        { return "" }

func setIcon(state assets.State) {
	systray.SetTemplateIcon(assets.Template(state), assets.Icon(state))
}

func escape(title string) string { return title }
