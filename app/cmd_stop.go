package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/control"
)

func (c *cli) stopCommand() *cobra.Command {
	var leave, after, end bool
	cmd := &cobra.Command{
		Use:   "stop [--leave | --after-rentals | --end-rentals]",
		Short: "Quit the agent; rentals run on unless told otherwise",
		Long: `stop quits the agent. What becomes of the rentals is your choice:

  --leave          they run on without the agent, and the next start adopts them (default)
  --after-rentals  no new ones; the agent quits when the last one has ended, unless resume calls it off
  --end-rentals    they are ended first`,
		Args: atMostOne("leave", "after-rentals", "end-rentals"),
		RunE: do(func(ctx context.Context, _ []string) error {
			how := agent.LeaveRentals
			switch {
			case after:
				how = agent.AfterRentals
			case end:
				how = agent.EndingRentals
			}
			return c.ask(func(client *agentClient) error { return c.stop(ctx, client, how) })
		}),
	}
	cmd.Flags().BoolVar(&leave, "leave", false, "leave the rentals running (default)")
	cmd.Flags().BoolVar(&after, "after-rentals", false, "quit when the last rental has ended")
	cmd.Flags().BoolVar(&end, "end-rentals", false, "end the rentals first")
	return cmd
}

func (c *cli) stop(ctx context.Context, client *agentClient, how agent.How) error {
	status, err := client.Status(ctx)
	if err != nil {
		return err
	}
	running := live(status)
	if err := client.Quit(ctx, how); err != nil {
		return err
	}
	switch {
	case running == 0:
	case how == agent.AfterRentals:
		c.println("the agent takes no new rentals and quits when the last one has ended (%s left); to have it stay after all: distributed-agent resume", plural(running, "rental"))
		return nil
	case how == agent.EndingRentals:
		c.println("ending %s", plural(running, "rental"))
	}
	if err := awaitEnd(ctx, client); err != nil {
		return err
	}
	if how == agent.LeaveRentals && running > 0 {
		c.println("the agent has quit; rentals run on (%d), and the next start adopts them", running)
		return nil
	}
	c.println("the agent has quit")
	return nil
}

// closing bounds how long the process may take once its last picture has been told.
const closing = 15 * time.Second

// awaitEnd returns when nobody listens any more.
func awaitEnd(ctx context.Context, client *agentClient) error {
	for _, err := range client.Watch(ctx) {
		if err != nil {
			break // gone, or going: the next question tells
		}
	}
	ctx, cancel := context.WithTimeout(ctx, closing)
	defer cancel()
	for {
		identity, err := client.Identity(ctx)
		if errors.Is(err, control.ErrNotRunning) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the agent (pid %d) has understood but not quit; end the process if it stays", identity.PID)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// live counts the rentals that have not ended.
func live(status agent.Status) int {
	n := 0
	for _, r := range status.Rentals {
		if !r.State.Final() {
			n++
		}
	}
	return n
}
