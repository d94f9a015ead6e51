//go:build linux

// Command isolation proves what a host is promised, on a real Docker Engine and with the built agent: that orders which
// could harm it are refused, that a rental reaches neither its network nor another rental, that it is held to what was
// rented, that what leads out of a container is denied, and that nothing of the owner's own is touched. It ends with one
// line for each, and with exit code 1 where one of them falls short.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/distributedcompute/host-agent/sandbox/engine"
)

func main() {
	os.Exit(engine.Isolated(func() int {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if err := run(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "isolation:", err)
			return 1
		}
		return 0
	}))
}

func run(ctx context.Context) (err error) {
	p, err := openPlace(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if closing := p.close(); err == nil {
			err = closing
		}
	}()
	if err := p.startAgent(ctx); err != nil {
		return err
	}
	var verdicts []verdict
	for _, part := range []func(context.Context) (verdict, error){p.refused} {
		v, err := part(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		progress(os.Stderr, "%s", v)
		for _, wrong := range v.wrong {
			progress(os.Stderr, "  %s", wrong)
		}
		verdicts = append(verdicts, v)
	}
	short := 0
	for _, v := range verdicts {
		fmt.Println(v)
		if v.short() {
			short++
		}
	}
	if short > 0 {
		return fmt.Errorf("%d of %d parts fall short", short, len(verdicts))
	}
	return nil
}
