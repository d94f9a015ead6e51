package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/sandbox/demo"
)

func newDemo(at *place) *cobra.Command {
	options := demo.Options{Program: at.program, Out: os.Stdout, Err: os.Stderr, In: os.Stdin}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Rent this machine for real, from registration to the rental's end",
		Long: `Rent this machine for real, from registration to the rental's end.

With DEMO_ONCE=1 in the environment it asks nothing and its exit code tells success.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return demo.Run(cmd.Context(), options) },
	}
	once := os.Getenv("DEMO_ONCE")
	cmd.Flags().BoolVar(&options.Once, "once", once != "" && once != "0", "ask nothing and end by itself")
	cmd.Flags().StringVar(&options.Agent, "agent", "build/distributed-agent", "program of the host agent")
	return cmd
}

// newDemoInside is how the demo gets into namespaces of its own.
func newDemoInside() *cobra.Command {
	return &cobra.Command{
		Use:    demo.InsideCommand + " ORDER",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		Run:    func(cmd *cobra.Command, args []string) { os.Exit(demo.Inside(cmd.Context(), args[0])) },
	}
}
