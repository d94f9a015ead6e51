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

func run(ctx context.Context) error {
	only := flag.String("only", "", "part to prove, of refused, reachable, contained and denied; \"\": all of these, and that no decoy is touched; btrfs: the bombs of the disk there")
	flag.Parse()
	var verdicts []verdict
	if *only != "btrfs" {
		proven, err := proveOn(ctx, "ext4", *only, []part{
			{"refused", (*place).refused},
			{"reachable", func(p *place, ctx context.Context) (verdict, error) { return p.reachable(ctx, false) }},
			{"contained", func(p *place, ctx context.Context) (verdict, error) { return p.contained(ctx, allBombs) }},
			{"denied", (*place).denied},
		})
		if err != nil {
			return err
		}
		verdicts = append(verdicts, proven...)
	}
	if *only == "btrfs" {
		// Here it is the storage itself that holds rentals to their disks.
		proven, err := proveOn(ctx, "btrfs", *only, []part{{"btrfs", func(p *place, ctx context.Context) (verdict, error) {
			v, err := p.contained(ctx, diskBombs)
			v.name = "contained on btrfs"
			return v, err
		}}})
		if err != nil {
			return err
		}
		verdicts = append(verdicts, proven...)
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

// part is one that can be asked for by its name.
type part struct {
	name  string
	prove func(*place, context.Context) (verdict, error)
}

// proveOn proves the parts, or only one of them, on an engine whose data is on a file system of that kind, and that no decoy
// was touched by it.
func proveOn(ctx context.Context, storage, only string, parts []part) (verdicts []verdict, err error) {
	p, err := openPlace(ctx, storage)
	if err != nil {
		return nil, err
	}
	defer func() {
		if closing := p.close(); err == nil {
			err = closing
		}
	}()
	if err := p.startAgent(ctx); err != nil {
		return nil, err
	}
	decoys, err := p.setDecoys(ctx)
	if err != nil {
		return nil, err
	}
	parts = append(parts, part{"decoys", func(p *place, ctx context.Context) (verdict, error) { return p.decoysTouched(ctx, decoys) }})
	for _, part := range parts {
		if only != "" && only != part.name && part.name != "decoys" {
			continue
		}
		v, err := part.prove(p, ctx)
		if err != nil {
			return nil, fmt.Errorf("%s on %s: %w", v.name, storage, err)
		}
		progress(os.Stderr, "%s", v)
		for _, line := range append(v.notes, v.wrong...) {
			progress(os.Stderr, "  %s", line)
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, nil
}
