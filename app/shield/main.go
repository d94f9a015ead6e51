// Command distributed-agent-shield puts the shield of [shield] up, looks at it and takes it down in the network namespace it
// is started in. The agent runs it in a short-lived container where it may not do that itself. What stands is printed
// as JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/distributedcompute/host-agent/core/shield"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var stands shield.Standing
	var err error
	switch {
	case len(args) == 2 && args[0] == "raise":
		var policy shield.Policy
		if err := json.Unmarshal([]byte(args[1]), &policy); err != nil {
			return fmt.Errorf("reading the policy: %w", err)
		}
		stands, err = shield.Raise(ctx, shield.Direct{}, policy)
	case len(args) == 1 && args[0] == "observe":
		stands, err = shield.Observe(ctx, shield.Direct{})
	case len(args) == 1 && args[0] == "lower":
		err = shield.Lower(ctx, shield.Direct{})
	default:
		return fmt.Errorf("usage: distributed-agent-shield raise POLICY | observe | lower")
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(stands)
}
