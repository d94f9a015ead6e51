package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/assets"
	"github.com/distributedcompute/host-agent/core/desktop"
)

// autostart starts this very program, with the configuration it was called with.
func (c *cli) autostart() (*desktop.Autostart, error) {
	args := []string{"tray"}
	if c.configFile != "" {
		file, err := filepath.Abs(c.configFile)
		if err != nil {
			return nil, fmt.Errorf("finding the configuration: %w", err)
		}
		args = append(args, "--config", file)
	}
	for _, flag := range c.flags {
		if flag.Key == "state_dir" {
			dir, err := filepath.Abs(flag.Value)
			if err != nil {
				return nil, fmt.Errorf("finding the state directory: %w", err)
			}
			args = append(args, flag.Name, dir)
		}
	}
	return desktop.NewAutostart(desktop.AutostartOptions{Args: args, Icon: assets.App()}), nil
}

func (c *cli) autostartCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "autostart on | off | status",
		Short: "Start the tray when you log in, or not",
	}
	group(cmd)
	add := func(name, short string, act func(context.Context, *desktop.Autostart) error) {
		cmd.AddCommand(&cobra.Command{
			Use: name, Short: short, Args: cobra.NoArgs,
			RunE: do(func(ctx context.Context, _ []string) error {
				autostart, err := c.autostart()
				if err != nil {
					return err
				}
				return act(ctx, autostart)
			}),
		})
	}
	add("on", "Start at login", func(ctx context.Context, a *desktop.Autostart) error {
		if err := a.Enable(ctx); err != nil {
			return err
		}
		return c.tellAutostart(ctx, a)
	})
	add("off", "Do not start at login", func(ctx context.Context, a *desktop.Autostart) error {
		if err := a.Disable(ctx); err != nil {
			return err
		}
		return c.tellAutostart(ctx, a)
	})
	add("status", "Say whether it starts at login", c.tellAutostart)
	return cmd
}

func (c *cli) tellAutostart(ctx context.Context, a *desktop.Autostart) error {
	state, err := a.State(ctx)
	if err != nil {
		return err
	}
	switch {
	case state.Blocked != "":
		c.println("off: %s", state.Blocked)
	case state.On:
		c.println("on: the tray starts when you log in (%s)", state.Program)
	default:
		c.println("off: the tray starts when you start it")
	}
	return nil
}

func (c *cli) notificationsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "notifications on | off | status",
		Short: "Let the tray show notifications, or not",
	}
	group(cmd)
	add := func(name, short string, act func(wishes) error) {
		cmd.AddCommand(&cobra.Command{
			Use: name, Short: short, Args: cobra.NoArgs,
			RunE: do(func(context.Context, []string) error {
				cfg, err := c.config()
				if err != nil {
					return err
				}
				w := wishes{cfg.StateDir, cfg.Desktop.Notifications}
				if err := act(w); err != nil {
					return err
				}
				c.println("%s", map[bool]string{true: "on", false: "off"}[w.notifications()])
				return nil
			}),
		})
	}
	add("on", "Show notifications", func(w wishes) error { return w.setNotifications(true) })
	add("off", "Show none", func(w wishes) error { return w.setNotifications(false) })
	add("status", "Say whether notifications are shown", func(wishes) error { return nil })
	return cmd
}

func (c *cli) dashboardCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dashboard",
		Short: "Open the marketplace's dashboard in the browser",
		Args:  cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			if cfg.Dashboard == "" {
				return usagef("the dashboard's address is not set: set dashboard in agent.yaml")
			}
			c.println("%s", cfg.Dashboard)
			c.open(ctx, cfg.Dashboard)
			return nil
		}),
	}
}
