package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newEnrol(at *place) *cobra.Command {
	var (
		uses   int
		within time.Duration
	)
	cmd := &cobra.Command{
		Use:   "enrol",
		Short: "Print a token by which a host enrols without anybody signing in",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := at.client().EnrolmentToken(cmd.Context(), uses, within)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token.Reveal()) // alone, so that it can be piped
			return err
		},
	}
	cmd.Flags().IntVar(&uses, "uses", 1, "hosts that may enrol with it, 1 to 1000")
	cmd.Flags().DurationVar(&within, "within", time.Hour, "how long it is good")
	return cmd
}
