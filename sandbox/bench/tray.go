//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/trayhost"
)

// tray measures the agent with its icon in a panel: how soon the menu shows a change of the host, and
// what it costs while nothing happens.
func (b *bench) tray(ctx context.Context, rounds, windows int) ([]figure, error) {
	b.stop()
	bus, err := trayhost.StartBus()
	if err != nil {
		return nil, err
	}
	defer bus.Close()
	panel, err := trayhost.OpenPanel(bus.Address)
	if err != nil {
		return nil, err
	}
	defer panel.Close()
	defer b.stop()
	home := filepath.Join(b.Dir, "home")
	if _, err := b.run([]string{"DBUS_SESSION_BUS_ADDRESS=" + bus.Address, "HOME=" + home, "XDG_RUNTIME_DIR=" + home, "DISPLAY=:0"}, "tray"); err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	icon, err := panel.Icon(within)
	if err != nil {
		return nil, fmt.Errorf("waiting for the icon: %w", err)
	}
	if err := b.shows(within, icon, "Online, ready for rentals"); err != nil {
		return nil, err
	}
	progress("change of the host → the menu shows it, %d times", rounds)
	var took []float64
	for range rounds {
		for _, change := range []struct {
			message protocol.Message
			words   string
		}{{protocol.DrainNode{}, "Paused by the marketplace"}, {protocol.ResumeNode{}, "Online, ready for rentals"}} {
			began := time.Now()
			if _, err := b.Backend.Command(within, b.node, change.message); err != nil {
				return nil, fmt.Errorf("changing the host's state: %w", err)
			}
			if err := b.shows(within, icon, change.words); err != nil {
				return nil, err
			}
			took = append(took, milliseconds(time.Since(began)))
		}
	}
	figures, err := b.watch("idle with tray", windows, 28, 25, 10)
	return append([]figure{{"change of the host → the menu shows it, median", median(took), "ms", 200}}, figures...), err
}

// shows waits until the menu begins with these words.
func (b *bench) shows(ctx context.Context, icon *trayhost.Icon, words string) error {
	_, err := icon.Await(ctx, func(l trayhost.Look) bool { return strings.HasPrefix(l.Menu.String(), "("+words) })
	return err
}
