package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/distributedcompute/host-agent/assets"
	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/desktop"
	"github.com/distributedcompute/host-agent/core/durable"
	"github.com/distributedcompute/host-agent/tray"
)

// desk is this user's desktop as the tray uses it.
type desk struct {
	autostart *desktop.Autostart
	notifier  *desktop.Notifier
	wishes    wishes
	start     func(ctx context.Context) error // runs the agent in this process
}

func (c *cli) desk(cfg *config.Config, start func(context.Context) error) (*desk, error) {
	autostart, err := c.autostart()
	if err != nil {
		return nil, err
	}
	notifier := desktop.NewNotifier(desktop.NotifierOptions{Name: "DistributedCompute", Icon: assets.App()})
	return &desk{autostart, notifier, wishes{cfg.StateDir, cfg.Desktop.Notifications}, start}, nil
}

func (d *desk) OpenURL(ctx context.Context, url string) error   { return desktop.OpenURL(ctx, url) }
func (d *desk) OpenFile(ctx context.Context, path string) error { return desktop.OpenFile(ctx, path) }
func (d *desk) Copy(ctx context.Context, text string) error     { return desktop.Copy(ctx, text) }
func (d *desk) StartAgent(ctx context.Context) error            { return d.start(ctx) }

// Notify shows a note. Whether its owner wants news at all the tray asks; what came of a click is told anyway.
func (d *desk) Notify(ctx context.Context, n tray.Note) error {
	return d.notifier.Notify(ctx, desktop.Note{Key: n.Key, Title: n.Title, Body: n.Body, Urgent: n.Urgent})
}

func (d *desk) Autostart(ctx context.Context) (on bool, blocked string, err error) {
	state, err := d.autostart.State(ctx)
	return state.On, state.Blocked, err
}

func (d *desk) SetAutostart(ctx context.Context, on bool) error {
	if on {
		return d.autostart.Enable(ctx)
	}
	return d.autostart.Disable(ctx)
}

func (d *desk) Notifications() bool            { return d.wishes.notifications() }
func (d *desk) SetNotifications(on bool) error { return d.wishes.setNotifications(on) }

// wishes are what the owner has switched in the tray or by a command. They win over agent.yaml.
type wishes struct {
	stateDir      string
	notifyDefault bool
}

const wishesFile = "desktop.json"

type desktopWishes struct {
	Notifications *bool `json:"notifications,omitempty"`
}

func (w wishes) load() (desktopWishes, error) {
	var saved desktopWishes
	content, err := os.ReadFile(filepath.Join(w.stateDir, wishesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return saved, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &saved)
	}
	if err != nil {
		return desktopWishes{}, fmt.Errorf("reading what was switched on this desktop: %w", err)
	}
	return saved, nil
}

func (w wishes) notifications() bool {
	if saved, err := w.load(); err == nil && saved.Notifications != nil {
		return *saved.Notifications
	}
	return w.notifyDefault
}

func (w wishes) setNotifications(on bool) error {
	content, err := json.Marshal(desktopWishes{Notifications: &on})
	if err != nil {
		return err
	}
	if err := config.MakeStateDir(w.stateDir); err != nil {
		return err
	}
	root, err := os.OpenRoot(w.stateDir)
	if err != nil {
		return fmt.Errorf("opening the state directory: %w", err)
	}
	defer root.Close()
	if err := durable.Replace(root, wishesFile, append(content, '\n')); err != nil {
		return fmt.Errorf("keeping what was switched: %w", err)
	}
	return nil
}
