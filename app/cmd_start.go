package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/config"
)

func (c *cli) startCommand() *cobra.Command {
	var headless bool
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Run the agent until it is stopped",
		Long: `start runs the agent in the foreground and logs to standard error. An interrupt quits it: rentals run
on, and the next start adopts them. A second interrupt ends it at once.`,
		Args: cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			if err := addressed(cfg); err != nil {
				return err
			}
			return c.host(ctx, cfg, headless)
		}),
	}
	cmd.Flags().BoolVar(&headless, "headless", false, "show nothing but the log")
	c.addSettingFlags(cmd)
	return cmd
}

func addressed(cfg *config.Config) error {
	if cfg.Backend.URL == "" {
		return usagef("the marketplace's address is not set: give --backend wss://…, or set backend.url in agent.yaml")
	}
	return nil
}
