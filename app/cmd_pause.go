package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

func (c *cli) pauseCommand() *cobra.Command {
	var length time.Duration
	var until string
	var cmd *cobra.Command
	cmd = &cobra.Command{
		Use:   "pause [--for 1h | --until 18:30]",
		Short: "Take no new rentals until resume, or for a while; rentals run on",
		Args:  atMostOne("for", "until"),
		RunE: do(func(ctx context.Context, _ []string) error {
			now := time.Now()
			var end time.Time
			switch {
			case length < 0, length == 0 && cmd.Flags().Changed("for"):
				return usagef("--for: takes a duration such as 1h, got %s", length)
			case length > 0:
				end = now.Add(length)
			case until != "":
				var err error
				if end, err = parseMoment(until, now); err != nil {
					return usagef("--until: %w", err)
				}
			}
			return c.ask(func(client *agentClient) error {
				if err := client.Pause(ctx, end); err != nil {
					return err
				}
				if end.IsZero() {
					c.println("paused: no new rentals until: distributed-agent resume")
				} else {
					c.println("paused: no new rentals until %s", clock(end, now))
				}
				return nil
			})
		}),
	}
	cmd.Flags().DurationVar(&length, "for", 0, "how long, such as 1h")
	cmd.Flags().StringVar(&until, "until", "", "until when: 18:30, or 2026-01-02T15:04:05Z")
	return cmd
}

func (c *cli) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resume",
		Short: "Take rentals again after pause or drain",
		Args:  cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error {
			return c.ask(func(client *agentClient) error {
				if err := client.Resume(ctx); err != nil {
					return err
				}
				status, err := client.Status(ctx)
				if err != nil {
					return err
				}
				c.println("resumed: %s", describeIntake(status))
				return nil
			})
		}),
	}
}

func (c *cli) drainCommand() *cobra.Command {
	var deadline string
	cmd := &cobra.Command{
		Use:   "drain [--deadline 2h]",
		Short: "Take no new rentals and pause when the last one has ended",
		Args:  cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error {
			now := time.Now()
			var end time.Time
			if deadline != "" {
				var err error
				if end, err = parseMoment(deadline, now); err != nil {
					return usagef("--deadline: %w", err)
				}
			}
			return c.ask(func(client *agentClient) error {
				status, err := client.Status(ctx)
				if err != nil {
					return err
				}
				if err := client.Drain(ctx, end); err != nil {
					return err
				}
				switch {
				case live(status) == 0:
					c.println("no rental is here, so the node is paused now: no new rentals until: distributed-agent resume")
				case end.IsZero():
					c.println("draining: no new rentals; the node pauses when the last one has ended (%s left), until: distributed-agent resume", plural(live(status), "rental"))
				default:
					c.println("draining: no new rentals; those still running at %s are ended and the node pauses, until: distributed-agent resume", clock(end, now))
				}
				return nil
			})
		}),
	}
	cmd.Flags().StringVar(&deadline, "deadline", "", "when the rentals that are left are ended: 2h, 18:30, or 2026-01-02T15:04:05Z")
	return cmd
}
