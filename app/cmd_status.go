package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os/signal"
	"time"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/agent"
)

func (c *cli) statusCommand() *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the machine is doing, and every problem with its fix",
		Args:  cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error {
			return c.ask(func(client *agentClient) error {
				if watch {
					return c.watch(ctx, client, asJSON)
				}
				status, err := client.Status(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return c.printJSON(status)
				}
				return writeStatus(c.out, status, time.Now())
			})
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON; with --watch one object a line")
	cmd.Flags().BoolVar(&watch, "watch", false, "show every change until interrupted")
	return cmd
}

// watch shows every picture of the agent until it quits or somebody interrupts.
func (c *cli) watch(ctx context.Context, client *agentClient, asJSON bool) error {
	ctx, stop := signal.NotifyContext(ctx, quitSignals...)
	defer stop()
	show := c.screen()
	if asJSON {
		show = func(s agent.Status) error { return json.NewEncoder(c.out).Encode(s) }
	}
	for status, err := range client.Watch(ctx) {
		if err != nil {
			return err
		}
		if err := show(status); err != nil {
			return err
		}
	}
	return nil
}

// screen shows each picture in the place of the last one; without a terminal, one after the other.
func (c *cli) screen() func(agent.Status) error {
	const home, clear = "\x1b[H", "\x1b[J"
	terminal := isTerminal(c.out)
	if terminal {
		allowEscapes(c.out)
		io.WriteString(c.out, "\x1b[2J")
	}
	return func(s agent.Status) error {
		var b bytes.Buffer
		if err := writeStatus(&b, s, time.Now()); err != nil {
			return err
		}
		if !terminal {
			_, err := c.out.Write(append(b.Bytes(), '\n'))
			return err
		}
		// Each line is cleared to its end, so that nothing flickers.
		lines := bytes.ReplaceAll(b.Bytes(), []byte("\n"), []byte("\x1b[K\n"))
		_, err := c.out.Write(append(append([]byte(home), lines...), clear...))
		return err
	}
}
