package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

func newDrain(at *place) *cobra.Command {
	var stopInstances bool
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Ask the host to take no new rentals",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := at.client().Drain(cmd.Context(), stopInstances); err != nil {
				return err
			}
			and := ""
			if stopInstances {
				and = " and ends those it has"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "The host takes no new rentals%s. Undo: %s\n", and, at.command("resume"))
			return nil
		},
	}
	cmd.Flags().BoolVar(&stopInstances, "stop-instances", false, "and to end those it has")
	return cmd
}

func newResume(at *place) *cobra.Command {
	return &cobra.Command{
		Use:   "resume",
		Short: "Undo drain",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := at.client().Resume(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "The host is not drained any more: it takes rentals unless its owner paused it.")
			return nil
		},
	}
}

func newNotice(at *place) *cobra.Command {
	var notice protocol.Notice
	cmd := &cobra.Command{
		Use:   "notice TITLE BODY",
		Short: "Send the host a message for its owner",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			notice.Title, notice.Body = args[0], args[1]
			if err := at.client().Notice(cmd.Context(), notice); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "The host has the message.")
			return nil
		},
	}
	cmd.Flags().StringVar(&notice.URL, "url", "", "https address to read more at")
	cmd.Flags().StringVar(&notice.Severity, "severity", "info", "how much it matters, such as info, warning or error")
	return cmd
}

func newSpeedTest(at *place) *cobra.Command {
	return &cobra.Command{
		Use:   "speedtest",
		Short: "Have the host measure its network",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			network, err := at.client().SpeedTest(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "download %s Mbit/s, upload %s Mbit/s, latency %s ms, jitter %s ms\n",
				measured(network.DownloadMbps), measured(network.UploadMbps), measured(network.LatencyMS), measured(network.JitterMS))
			return nil
		},
	}
}

func measured(value *float64) string {
	if value == nil {
		return "?"
	}
	return fmt.Sprintf("%.2f", *value)
}

func newCut(at *place) *cobra.Command {
	var code int
	cmd := &cobra.Command{
		Use:   "cut",
		Short: "Break the hosts' connections to the backend",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := at.client().Cut(cmd.Context(), code); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "Every host's connection is broken. Agents connect again by themselves.")
			return nil
		},
	}
	cmd.Flags().IntVar(&code, "code", 0, "close with this WebSocket code, such as 1012 (default abruptly)")
	return cmd
}

func newExpire(at *place) *cobra.Command {
	var undo bool
	cmd := &cobra.Command{
		Use:   "expire",
		Short: "Make the host's key unknown, or known again",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if undo {
				return restore(cmd, at)
			}
			if err := at.client().Expire(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "The host's key is unknown from now on: its agent is sent away. Undo: %s\n", at.command("expire --undo"))
			return nil
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "make the same key good again")
	return cmd
}

func restore(cmd *cobra.Command, at *place) error {
	if err := at.client().Restore(cmd.Context()); err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), "The host's key is good again. Its agent tries again within 6 minutes, or at once when it is started anew.")
	return nil
}
