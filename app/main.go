// Command distributed-agent rents out this machine's GPUs on the DistributedCompute marketplace.
//
// It is two things in one program: the agent itself (start), and its command line, which speaks
// to the running agent over a local socket. This package holds no decisions: it reads arguments,
// joins the parts of core, and shows what they say.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/control"
	"github.com/distributedcompute/host-agent/core/keyring"
	"github.com/distributedcompute/host-agent/core/rental"
)

// Exit codes are part of the command line's contract.
const (
	exitOK                = 0
	exitFailed            = 1
	exitUsage             = 2
	exitAlreadyRunning    = 3
	exitNotRunning        = 4
	exitSignInNeeded      = 5
	exitDockerUnavailable = 6
)

func main() {
	// Windows' Explorer starts what a person double-clicks and what starts at login; the library would send both away.
	cobra.MousetrapHelpText = ""
	c := &cli{in: os.Stdin, out: os.Stdout, errOut: os.Stderr, environ: os.Environ()}
	// It has been read; no child of this process, a browser or a container's helper, has a use for it.
	if err := os.Unsetenv("HOST_API_KEY"); err != nil {
		explain(os.Stderr, fmt.Errorf("taking the host key out of the environment: %w", err))
		os.Exit(exitFailed)
	}
	os.Exit(c.run(context.Background(), os.Args[1:]))
}

// run carries out one command line and returns its exit code.
func (c *cli) run(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = c.unwritten
	}
	if err == nil {
		return exitOK
	}
	if !c.began {
		err = usagef("%w; see: %s --help", err, cmd.CommandPath())
	}
	explain(c.errOut, err)
	return exitCode(err)
}

// usageError is a mistake in what was typed or configured, not in what happened then.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func exitCode(err error) int {
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*control.AlreadyRunning](err); ok {
		return exitAlreadyRunning
	}
	if errors.Is(err, control.ErrShown) {
		return exitAlreadyRunning
	}
	if errors.Is(err, control.ErrNotRunning) {
		return exitNotRunning
	}
	if errors.Is(err, keyring.ErrNone) {
		return exitSignInNeeded
	}
	if refusal, ok := errors.AsType[*control.Refusal](err); ok && refusal.Code == string(rental.CodeDockerUnavailable) {
		return exitDockerUnavailable
	}
	return exitFailed
}

// explain tells a person what went wrong, a line for each mistake.
func explain(w io.Writer, err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(w, "distributed-agent: "+plain(line))
	}
}
