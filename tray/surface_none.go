//go:build darwin && !cgo

package tray

import (
	"context"
	"fmt"
	"log/slog"
)

// screen is none: the menu bar is reached through Cocoa, which needs cgo.
type screen struct{ surface }

func openScreen(context.Context, *slog.Logger) (*screen, error) {
	return nil, fmt.Errorf("this build of the agent has no menu-bar icon: %w", ErrNoScreen)
}

func (*screen) show(context.Context, func() error) error { return ErrNoScreen }
