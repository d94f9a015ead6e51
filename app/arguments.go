package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// group makes cmd one of others: alone it helps, and a word that is no command is a mistake.
func group(cmd *cobra.Command) {
	cmd.Args = noSuchCommand
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2 // letters to change
	meant := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		meant = fmt.Sprintf(" (did you mean %s?)", strings.Join(near, " or "))
	}
	return fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), meant)
}

// oneRental takes the ID of a rental.
func oneRental(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("takes the ID of one rental, as distributed-agent rentals lists it; got %d", len(args))
	}
	return nil
}

// atMostOneRental is oneRental, or none.
func atMostOneRental(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return oneRental(cmd, args)
}

// atMostOne takes no argument, and one of some flags that contradict each other.
func atMostOne(flags ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		var given []string
		for _, name := range flags {
			if cmd.Flags().Changed(name) {
				given = append(given, "--"+name)
			}
		}
		if len(given) > 1 {
			return fmt.Errorf("%s contradict each other; give one of them", strings.Join(given, " and "))
		}
		return cobra.NoArgs(cmd, args)
	}
}
