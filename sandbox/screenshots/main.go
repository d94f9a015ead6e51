//go:build linux

// Command screenshots takes the pictures of the agent's icon and menu for the documentation. Nothing in
// them is painted: the built agent rents on a sandbox marketplace and a private Docker Engine, its icon
// is in the panel of a desktop that nobody sees, and what is clicked there is clicked by a pointer. Only
// the graphics cards and the earnings of a month are made up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/distributedcompute/host-agent/sandbox/engine"
)

// patience is for all pictures together.
const patience = 10 * time.Minute

func main() {
	if filepath.Base(os.Args[0]) == openerName {
		os.Exit(openPage())
	}
	os.Exit(engine.Isolated(func() int {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if err := run(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "screenshots:", err)
			return 1
		}
		return 0
	}))
}

func run(ctx context.Context) error {
	out := flag.String("out", "docs/screenshots", "folder the pictures go to")
	program := flag.String("agent", "build/distributed-agent", "program of the host agent")
	flag.Parse()
	asked := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the pictures took longer than %s", patience))
	defer cancel()

	// A place of our own namespace: its name is in the pictures, and it goes by itself.
	const dir = "/run/dc"
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o711)); err != nil { // whatever the umask
		return fmt.Errorf("making a folder: %w", err)
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return fmt.Errorf("making the pictures' folder: %w", err)
	}
	s := newStory(dir, *out)
	err := s.play(ctx, *program)
	if err != nil && asked.Err() == nil {
		err = errors.Join(err, s.lastSight(), errors.New(s.lastWords()))
	}
	return errors.Join(err, s.leave())
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// until asks again and again until something is done, which it says to wait for in an error.
func until(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("it took longer than a minute"))
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		ok, err := done()
		if ok && err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx)), err)
		}
	}
}
