//go:build linux

// Command isolation proves what a host is promised, on a real Docker Engine and with the built agent: that orders which
// could harm it are refused, that a rental reaches neither its network nor another rental, that it is held to what was
// rented, that what leads out of a container is denied, and that nothing of the owner's own is touched. It ends with one
// line for each, and with exit code 1 where one of them falls short.
package main

import (
	"context"
	"flag"
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
	only := flag.String("only", "", "part to prove, of refused, reachable, contained and denied; \"\": all, and that no decoy is touched")
	flag.Parse()
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
	decoys, err := p.setDecoys(ctx)
	if err != nil {
		return err
	}
	var verdicts []verdict
	for _, part := range []struct {
		name  string
		prove func(context.Context) (verdict, error)
	}{
		{"refused", p.refused},
		{"reachable", func(ctx context.Context) (verdict, error) { return p.reachable(ctx, false) }},
		{"contained", func(ctx context.Context) (verdict, error) { return p.contained(ctx, false) }},
		{"denied", p.denied},
		{"decoys", func(ctx context.Context) (verdict, error) { return p.decoysTouched(ctx, decoys) }},
	} {
		if *only != "" && *only != part.name && part.name != "decoys" {
			continue
		}
		v, err := part.prove(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		progress(os.Stderr, "%s", v)
		for _, line := range append(v.notes, v.wrong...) {
			progress(os.Stderr, "  %s", line)
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
