package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/secret"
)

func (c *cli) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Look at the configuration",
	}
	group(cmd)
	cmd.AddCommand(c.configExplainCommand(), c.configCheckCommand())
	return cmd
}

func (c *cli) configExplainCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Show every setting, its value, and where it came from",
		Args:  cobra.NoArgs,
		RunE: do(func(context.Context, []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			if asJSON {
				return c.printJSON(cfg.Explain())
			}
			c.println("agent.yaml: %s\n", cmp.Or(cfg.File, "none"))
			t := newTable(c.out)
			t.row("SETTING", "VALUE", "FROM")
			for _, s := range cfg.Explain() {
				t.row(s.Key, cmp.Or(s.Value, `""`), s.Source)
			}
			return t.flush()
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.addSettingFlags(cmd)
	return cmd
}

func (c *cli) configCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration without starting anything",
		Args:  cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			if err := check(ctx, cfg); err != nil {
				return err
			}
			if cfg.File == "" {
				c.println("the configuration is good; there is no agent.yaml")
				return nil
			}
			c.println("the configuration is good: %s", cfg.File)
			return nil
		}),
	}
	c.addSettingFlags(cmd)
	return cmd
}

// check tells everything in the configuration, and in the files it names, that start would refuse.
func check(ctx context.Context, cfg *config.Config) error {
	find := func(ctx context.Context) (secret.String, error) {
		key, _, err := keys(cfg).Find(ctx)
		return key, err
	}
	key, keyErr := find(ctx)
	keyErr = needKey(key, keyErr, canSignIn(cfg))
	linkErr := addressed(cfg)
	if linkErr == nil {
		_, linkErr = newLink(cfg, describeAgent(), find, nil, slog.New(slog.DiscardHandler))
	}
	_, relayErr := relayTerms(cfg.Relay)
	_, testErr := speedTest(cfg.SpeedTest)
	return errors.Join(linkErr, keyErr, relayErr, testErr)
}
