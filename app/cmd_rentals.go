package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/rental"
)

func (c *cli) rentalsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "rentals",
		Short: "List the rentals",
		Args:  noSuchCommand,
		RunE: do(func(ctx context.Context, _ []string) error {
			return c.ask(func(client *agentClient) error {
				status, err := client.Status(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return c.printJSON(status.Rentals)
				}
				c.println("%s", status.Engine.Shield)
				if len(status.Rentals) == 0 {
					c.println("no rentals")
				} else if err := writeRentals(c.out, status.Rentals, time.Now()); err != nil {
					return err
				}
				return writeEnded(c.out, status.Ended, time.Now())
			})
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(c.endCommand())
	return cmd
}

// writeEnded lists what has ended of late; nothing where that is nothing.
func writeEnded(w io.Writer, rentals []rental.Status, now time.Time) error {
	if len(rentals) == 0 {
		return nil
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	t := newTable(w)
	t.row("ENDED", "STATE", "AT", "RAN", "IMAGE", "HOW")
	for _, r := range slices.Backward(rentals) {
		how := none
		switch {
		case r.Failure != nil:
			how = r.Failure.Message
		case r.ExitCode != nil:
			how = fmt.Sprintf("exit code %d", *r.ExitCode)
		}
		t.row(string(r.ID), string(r.State), clock(r.EndedAt, now), lasted(r, now), r.Spec.Image, how)
	}
	return t.flush()
}

func (c *cli) endCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "end ID",
		Short:             "End a rental: its container, network and public ports go",
		Args:              oneRental,
		ValidArgsFunction: c.completeRental,
		RunE: do(func(ctx context.Context, args []string) error {
			return c.ask(func(client *agentClient) error {
				if err := client.EndRental(ctx, args[0]); err != nil {
					return err
				}
				c.println("rental %s is being ended", args[0])
				return nil
			})
		}),
	}
}

func (c *cli) logsCommand() *cobra.Command {
	var tail int
	var since string
	cmd := &cobra.Command{
		Use:               "logs [ID]",
		Short:             "Show what a rental prints; without an ID, the agent's own log",
		Args:              atMostOneRental,
		ValidArgsFunction: c.completeRental,
		RunE: do(func(ctx context.Context, args []string) error {
			if tail < 1 || tail > 5000 {
				return usagef("--tail: takes a number from 1 to 5000, got %d", tail)
			}
			var from time.Time
			if since != "" {
				var err error
				if from, err = parsePast(since, time.Now()); err != nil {
					return usagef("--since: %w", err)
				}
			}
			if len(args) == 0 {
				if since != "" {
					return usagef("--since: the agent's own log takes --tail alone")
				}
				return c.ownLog(tail)
			}
			return c.ask(func(client *agentClient) error {
				logs, err := client.Logs(ctx, args[0], tail, from)
				if err != nil {
					return err
				}
				_, err = io.WriteString(c.out, logs.Text)
				return err
			})
		}),
	}
	cmd.Flags().IntVar(&tail, "tail", 200, "newest lines to show, at most 5000")
	cmd.Flags().StringVar(&since, "since", "", "show what is newer: 10m, or 2026-01-02T15:04:05Z")
	return cmd
}

// maxOwnLog is how much of the agent's own log is looked at for its newest lines.
const maxOwnLog = 4 << 20

// ownLog shows the newest lines of the agent's log, where that is a file.
func (c *cli) ownLog(tail int) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	f, err := os.Open(logFile(cfg))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no log in %s: an agent without a tray logs to standard error, under systemd to its journal (journalctl --user -u distributed-agent); set log.file to have one", logFile(cfg))
	}
	if err != nil {
		return fmt.Errorf("opening the agent's log: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxOwnLog {
		if _, err := f.Seek(-maxOwnLog, io.SeekEnd); err != nil {
			return fmt.Errorf("reading the agent's log: %w", err)
		}
	}
	content, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("reading the agent's log: %w", err)
	}
	lines := slices.Collect(strings.Lines(string(content)))
	_, err = io.WriteString(c.out, strings.Join(lines[max(0, len(lines)-tail):], ""))
	return err
}

// completeRental completes the id of a rental; without an agent there is nothing to offer.
func (c *cli) completeRental(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var ids []string
	if client, err := c.client(); err == nil && len(args) == 0 {
		if status, err := client.Status(cmd.Context()); err == nil {
			for _, r := range status.Rentals {
				ids = append(ids, string(r.ID))
			}
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
