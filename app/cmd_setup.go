package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/control"
	"github.com/distributedcompute/host-agent/core/keyring"
)

func (c *cli) setupCommand() *cobra.Command {
	var fromStdin bool
	cmd := &cobra.Command{
		Use:   "setup --api-key-stdin",
		Short: "Store the host key and write a first agent.yaml",
		Long: `setup reads the host key of your dashboard from standard input and stores it for this user alone.
With --backend it also writes a first agent.yaml where there is none.

  distributed-agent setup --api-key-stdin --backend wss://… < key.txt`,
		Args: cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error {
			if !fromStdin {
				return usagef("signing in with the browser comes with the desktop release; until then give the host key of your dashboard on standard input: distributed-agent setup --api-key-stdin < key.txt")
			}
			return c.setup(ctx)
		}),
	}
	cmd.Flags().BoolVar(&fromStdin, "api-key-stdin", false, "read the host key from standard input")
	c.settingFlag(cmd.Flags(), "backend", addressKey, "address of the marketplace, wss://…, for a first agent.yaml")
	return cmd
}

const addressKey = "backend.url"

// maxKeyInput is far more than a key; who sends more has sent something else.
const maxKeyInput = 4096

func (c *cli) setup(ctx context.Context) error {
	text, err := io.ReadAll(io.LimitReader(c.in, maxKeyInput))
	if err != nil {
		return fmt.Errorf("reading the host key: %w", err)
	}
	key, err := keyring.Parse(string(text))
	if err != nil {
		return usagef("standard input: %w", err)
	}
	told, err := c.storeAddress()
	if err != nil {
		return err
	}
	cfg, err := c.config()
	if err != nil {
		return err
	}
	if err := config.MakeStateDir(cfg.StateDir); err != nil {
		return err
	}
	path, err := keyring.Store(cfg.StateDir, key)
	if err != nil {
		return err
	}
	c.println("the host key is stored in %s, readable by this user alone, unencrypted", path)
	if told == "" && cfg.Backend.URL == "" {
		told = "the marketplace's address is not set yet: give --backend wss://…, or set backend.url in agent.yaml"
	}
	if told != "" {
		c.println("%s", told)
	}
	return c.useKey(ctx, cfg)
}

// storeAddress writes a first agent.yaml where an address is given, and tells what came of it.
func (c *cli) storeAddress() (told string, err error) {
	isAddress := func(f config.Flag) bool { return f.Key == addressKey }
	given := slices.IndexFunc(c.flags, isAddress)
	if given < 0 {
		return "", nil
	}
	wrote, err := c.sources().WriteFirst()
	if err != nil {
		return "", &usageError{err}
	}
	if wrote != "" {
		return "a first configuration is in " + wrote, nil
	}
	kept := c.sources()
	kept.Flags = slices.DeleteFunc(slices.Clone(c.flags), isAddress)
	cfg, err := config.Load(kept)
	if err != nil {
		return "", &usageError{err}
	}
	address := c.flags[given].Value
	if cfg.Backend.URL == address {
		return "", nil
	}
	return fmt.Sprintf("%s was there already and stays as it is: set its backend.url to use %s", cfg.File, address), nil
}

// useKey has a running agent try the key at once, and says which key counts where it is another.
func (c *cli) useKey(ctx context.Context, cfg *config.Config) error {
	const overruled = "this key is not used: the agent takes the one from %s first; put the key there, or take that one away and restart the agent"
	stored := keyring.Stored(cfg.StateDir)
	client := control.NewClient(cfg.StateDir, buildVersion().Version)
	status, err := client.Status(ctx)
	if errors.Is(err, control.ErrNotRunning) {
		_, source, err := keyFinder(cfg, os.Getenv("CREDENTIALS_DIRECTORY"))()
		if source != stored {
			c.println(overruled, source)
			return err
		}
		c.println("next: distributed-agent start")
		return err
	}
	if err == nil {
		err = client.Retry(ctx)
	}
	if err != nil {
		return fmt.Errorf("telling the running agent of the new key: %w", err)
	}
	if status.KeySource != string(stored) {
		c.println(overruled, status.KeySource)
		return nil
	}
	c.println("the running agent (pid %d) signs on with it next, at once where it waits; see: distributed-agent status", status.PID)
	return nil
}
