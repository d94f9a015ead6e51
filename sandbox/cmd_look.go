package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/sandbox/admin"
)

func newNodes(at *place) *cobra.Command {
	return &cobra.Command{
		Use:   "nodes",
		Short: "List the hosts that have connected",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			nodes, err := at.client().Nodes(cmd.Context())
			if err != nil {
				return err
			}
			return printNodes(cmd.OutOrStdout(), nodes)
		},
	}
}

func newRentals(at *place) *cobra.Command {
	return &cobra.Command{
		Use:   "rentals",
		Short: "List the rentals",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rentals, err := at.client().Rentals(cmd.Context())
			if err != nil {
				return err
			}
			return printRentals(cmd.OutOrStdout(), rentals)
		},
	}
}

func newEarnings(at *place) *cobra.Command {
	return &cobra.Command{
		Use:   "earnings",
		Short: "List what the hosts have earned",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			earnings, err := at.client().Earnings(cmd.Context())
			if err != nil {
				return err
			}
			return printEarnings(cmd.OutOrStdout(), earnings)
		},
	}
}

func newLogs(at *place) *cobra.Command {
	var tail int
	cmd := &cobra.Command{
		Use:   "logs ID",
		Short: "Print a rental's newest output",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			logs, err := at.client().Logs(cmd.Context(), args[0], tail)
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), logs.Text)
			return err
		},
	}
	cmd.Flags().IntVar(&tail, "tail", 0, "lines, 1 to 5000 (default as the host gives)")
	return cmd
}

func printNodes(out io.Writer, nodes []admin.Node) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tLINK\tSTATUS\tACCEPTING\tRENTALS\tGPUS\tCPUS\tRAM\tHEARTBEATS\tAGENT")
	for _, n := range nodes {
		fmt.Fprintf(table, "%s\t%s\t%s\t%t\t%d\t%s\t%g\t%.1f GiB\t%s\t%s\n", n.ID, linkOf(n), orDash(n.Status), n.Accepting,
			n.Instances, orDash(strings.Join(n.GPUs, ", ")), n.CPUs, float64(n.RAMMB)/1024, beats(n), orDash(n.Agent))
	}
	return table.Flush()
}

func linkOf(n admin.Node) string {
	switch {
	case n.Registered:
		return "registered"
	case n.Connected:
		return "connected"
	}
	return "away"
}

func beats(n admin.Node) string {
	if n.Heartbeats == 0 {
		return "0"
	}
	return fmt.Sprintf("%d, last %s ago", n.Heartbeats, time.Since(n.LastHeartbeat).Round(time.Second))
}

func printRentals(out io.Writer, rentals []admin.Rental) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "RENTAL\tSTATE\tADDRESSES\tIMAGE\tNOTE")
	for _, r := range rentals {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", r.ID, orDash(r.State), orDash(strings.Join(r.Addresses, ", ")), orDash(r.Image), r.Problem)
	}
	return table.Flush()
}

// printEarnings prints the sums of every host, and below them those of the days on which it earned.
func printEarnings(out io.Writer, earnings []admin.Earnings) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tNOW/HOUR\tTODAY\tMONTH\tTOTAL\tUNPAID\tCURRENCY\tNEXT PAYOUT")
	for _, e := range earnings {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Node, e.RatePerHour, e.Today, e.Month, e.Total, e.Unpaid,
			e.Currency, e.NextPayoutAt.Format(time.DateOnly))
	}
	title := "\nNODE\tDAY\tEARNED\n"
	for _, e := range earnings {
		for _, day := range e.History {
			fmt.Fprintf(table, "%s%s\t%s\t%s\n", title, e.Node, day.Day, day.Amount)
			title = ""
		}
	}
	return table.Flush()
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
