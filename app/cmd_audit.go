package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/audit"
	"github.com/distributedcompute/host-agent/core/config"
)

func (c *cli) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Read and check the record of what this host was asked and did",
		Long: `audit reads the record that the agent keeps in its state directory: what the backend asked and was answered,
what became of each rental, and what the owner of this machine did. Its lines are chained, so that none
can be altered, removed or moved without its showing.`,
	}
	group(cmd)
	cmd.AddCommand(c.auditShowCommand(), c.auditVerifyCommand())
	return cmd
}

func (c *cli) auditShowCommand() *cobra.Command {
	var asJSON bool
	var tail int
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the record, oldest first",
		Args:  cobra.NoArgs,
		RunE: do(func(context.Context, []string) error {
			if tail < 0 {
				return usagef("--tail takes a number from 0")
			}
			dir, err := config.StateDir(c.sources())
			if err != nil {
				return &usageError{err}
			}
			return c.showRecord(dir, tail, asJSON)
		}),
	}
	cmd.Flags().IntVar(&tail, "tail", 0, "so many of the newest lines; 0: all")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

func (c *cli) showRecord(dir string, tail int, asJSON bool) error {
	var newest []audit.Entry
	for e, err := range audit.Entries(dir) {
		switch {
		case err != nil:
			return err
		case tail == 0:
			if err := c.printEntry(e, asJSON); err != nil {
				return err
			}
			continue
		case len(newest) == tail:
			newest = newest[1:]
		}
		newest = append(newest, e)
	}
	for _, e := range newest {
		if err := c.printEntry(e, asJSON); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) printEntry(e audit.Entry, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(c.out).Encode(e)
	}
	words := []string{e.At.Local().Format(time.DateTime), e.Kind}
	if e.Rental != "" {
		words = append(words, e.Rental)
	}
	if len(e.Data) > 0 {
		words = append(words, string(e.Data))
	}
	_, err := fmt.Fprintf(c.out, "%6d  %s\n", e.Seq, plain(strings.Join(words, "  ")))
	return err
}

func (c *cli) auditVerifyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that no line of the record was altered, removed or moved, and that its end is there",
		Long: `verify checks every line of the record. It exits with 0 where the record holds, else with 1, naming the file and
the line. Whoever may write this agent's files can begin a record anew; keep copies of audit.head elsewhere to notice that too.`,
		Args: cobra.NoArgs,
		RunE: do(func(context.Context, []string) error {
			dir, err := config.StateDir(c.sources())
			if err != nil {
				return &usageError{err}
			}
			return c.verifyRecord(dir, asJSON)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) verifyRecord(dir string, asJSON bool) error {
	summary, err := audit.Verify(dir)
	broken, isBroken := errors.AsType[*audit.Broken](err)
	if asJSON && (err == nil || isBroken) {
		if err := c.printJSON(struct {
			Intact bool `json:"intact"`
			audit.Summary
			Broken *audit.Broken `json:"broken,omitempty"`
		}{err == nil, summary, broken}); err != nil {
			return err
		}
	}
	switch {
	case isBroken:
		return fmt.Errorf("the audit record does not hold: %w", err)
	case err != nil || asJSON:
		return err
	}
	words := fmt.Sprintf("the audit record holds: %d lines, %d to %d", summary.Entries, summary.First, summary.Last)
	if summary.Torn > 0 {
		words += fmt.Sprintf("; %d times a power cut tore the last", summary.Torn)
	}
	if summary.Dropped > 0 {
		words += fmt.Sprintf("; %d things were not recorded", summary.Dropped)
	}
	c.println("%s", words)
	return nil
}
