package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/control"
	"github.com/distributedcompute/host-agent/core/desktop"
)

func (c *cli) startCommand() *cobra.Command {
	var headless bool
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Run the agent until it is stopped, with its icon in the tray",
		Long: `start runs the agent in the foreground and logs to standard error. An interrupt quits it: rentals run
on, and the next start adopts them. A second interrupt ends it at once.

Where there is a desktop its icon appears in the tray; --headless keeps it away.`,
		Args: cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			if err := addressed(cfg); err != nil {
				return err
			}
			return c.start(ctx, cfg, headless)
		}),
	}
	cmd.Flags().BoolVar(&headless, "headless", false, "without an icon in the tray")
	c.addSettingFlags(cmd)
	c.allowOldFlag(cmd.Flags())
	return cmd
}

func (c *cli) start(ctx context.Context, cfg *config.Config, headless bool) error {
	bottom := newFooter(c.errOut)
	bottom.terminal = bottom.terminal && !headless
	log := newLog(withFile(bottom, cfg.Log.File), cfg.Log)
	if !headless {
		if why := desktop.Available(); why != nil {
			log.Info("running without an icon in the tray", "because", why)
			headless = true
		}
	}
	seat := newSeat(cfg, log, hosting{cfg, log, bottom, !headless && canSignIn(cfg)}.run)
	err := seat.take(ctx)
	if _, taken := errors.AsType[*control.AlreadyRunning](err); taken {
		return fmt.Errorf("%w; see: distributed-agent status", err)
	}
	if err != nil {
		return err
	}
	if headless {
		return seat.wait()
	}
	release, err := control.ClaimIcon(cfg.StateDir)
	if err != nil {
		log.Info("running without an icon in the tray", "because", err)
		return seat.wait()
	}
	defer release()
	return c.showTray(ctx, cfg, seat, cfg.Log.File, log)
}

func addressed(cfg *config.Config) error {
	if cfg.Backend.URL == "" {
		return usagef("the marketplace's address is not set: give --backend wss://…, or set backend.url in agent.yaml")
	}
	return nil
}
