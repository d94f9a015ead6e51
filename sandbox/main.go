// Command sandbox is a marketplace on this machine, to try and to test a host agent on: everything
// real, nothing beyond loopback. `sandbox demo` shows the whole way of a rental; `sandbox up` runs
// a marketplace that the other commands drive.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/sandbox/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newRoot(os.Args[0]).ExecuteContext(ctx); err != nil {
		if !errors.Is(err, demo.ErrTold) {
			fmt.Fprintln(os.Stderr, "sandbox: "+err.Error())
		}
		os.Exit(1)
	}
}

// newRoot makes the commands of the program, which was called by that name or path.
func newRoot(program string) *cobra.Command {
	root := &cobra.Command{
		Use:           "sandbox",
		Short:         "A DistributedCompute marketplace on this machine",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	at := &place{program: program}
	root.PersistentFlags().StringVar(&at.dir, "dir", defaultDir(), "directory of the marketplace")
	root.AddCommand(
		newDemo(at),
		newDemoInside(),
		newUp(at),
		newRent(at),
		newStop(at),
		newRentals(at),
		newLogs(at),
		newNodes(at),
		newEarnings(at),
		newDrain(at),
		newResume(at),
		newNotice(at),
		newSpeedTest(at),
		newCut(at),
		newExpire(at),
		newEnrol(at),
	)
	return root
}
