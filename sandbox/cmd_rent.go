package main

import (
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/market"
)

func newRent(at *place) *cobra.Command {
	var (
		order    market.Rent
		ram, shm string
		env      []string
	)
	cmd := &cobra.Command{
		Use:   "rent [flags] [-- command...]",
		Short: "Order a rental and wait until its public addresses answer",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			order.Command = args
			if order.RAMBytes, err = bytesOf("ram", ram); err != nil {
				return err
			}
			if order.ShmBytes, err = bytesOf("shm", shm); err != nil {
				return err
			}
			if order.Env, err = environment(env); err != nil {
				return err
			}
			status, err := follow(cmd.OutOrStdout(), at.client().Rent(cmd.Context(), order))
			if err != nil {
				return err
			}
			if status.State != "running" {
				return fmt.Errorf("the rental does not run: %s", endOf(status))
			}
			return announce(cmd.Context(), cmd.OutOrStdout(), at, status)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&order.ID, "id", "", "rental id (default a fresh one)")
	flags.StringVar(&order.Node, "node", "", "host to rent from (default the first)")
	flags.StringVar(&order.Image, "image", "", "image (default the sandbox's workload)")
	flags.IntSliceVar(&order.GPUs, "gpus", nil, "GPU numbers, such as 0,1")
	flags.Float64Var(&order.CPUs, "cpus", market.DefaultCPUs, "CPU cores")
	flags.StringVar(&ram, "ram", "256m", "memory")
	flags.StringVar(&shm, "shm", "", "shared memory")
	flags.StringSliceVar(&order.Ports, "port", []string{"8080"}, "container ports to publish, such as 8080 or 9090/udp")
	flags.StringArrayVar(&env, "env", nil, "environment variable NAME=value")
	flags.DurationVar(&order.For, "for", 0, "end it after this time")
	return cmd
}

func newStop(at *place) *cobra.Command {
	return &cobra.Command{
		Use:   "stop ID",
		Short: "End a rental",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			status, err := follow(cmd.OutOrStdout(), at.client().Stop(cmd.Context(), args[0]))
			if err == nil && !status.Final() {
				err = fmt.Errorf("the rental is %q, not stopped", status.State)
			}
			return err
		},
	}
}

// follow prints the statuses of a rental as they come, and returns the last one.
func follow(out io.Writer, statuses iter.Seq2[protocol.InstanceStatus, error]) (latest protocol.InstanceStatus, err error) {
	for status, err := range statuses {
		if err != nil {
			return latest, err
		}
		if line := lineOf(status); line != lineOf(latest) {
			fmt.Fprintln(out, line)
		}
		latest = status
	}
	return latest, nil
}

// endOf says how a rental ended, or what it is doing.
func endOf(status protocol.InstanceStatus) string {
	switch {
	case status.Error != nil:
		return status.Error.Message
	case status.ExitCode != nil:
		return fmt.Sprintf("its program ended with exit code %d", *status.ExitCode)
	case status.State == "":
		return "nothing was heard of it"
	}
	return "it is " + status.State
}

func lineOf(status protocol.InstanceStatus) string {
	line := status.RentalID + "  " + status.State
	if p := status.Progress; p != nil && p.TotalBytes > 0 {
		line += fmt.Sprintf("  %d %%", 100*p.CurrentBytes/p.TotalBytes)
	}
	return line
}

func bytesOf(flag, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	size, err := protocol.ParseSize(text)
	if err != nil {
		return 0, fmt.Errorf("--%s %q: takes a size such as 512m or 16g", flag, text)
	}
	return int64(size), nil
}

func environment(assignments []string) (map[string]string, error) {
	env := map[string]string{}
	for _, assignment := range assignments {
		name, value, ok := strings.Cut(assignment, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--env %q: takes NAME=value", assignment)
		}
		env[name] = value
	}
	return env, nil
}
