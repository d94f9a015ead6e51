//go:build linux

// Command bench measures the built agent against the figures the project has set itself, on a
// private Docker Engine and the sandbox marketplace, and prints a table: figure, value, goal, met.
// What two programs do is measured in turns within one run and compared as a ratio, because machines differ.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/distributedcompute/host-agent/sandbox/engine"
	"github.com/distributedcompute/host-agent/sandbox/market"
)

// figure is one measured value and what it has to reach.
type figure struct {
	name  string
	value float64
	unit  string
	goal  float64 // the most it may be
}

func (f figure) met() bool { return f.value <= f.goal }

func main() {
	os.Exit(engine.Isolated(func() int {
		if err := run(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
		return 0
	}))
}

func run(ctx context.Context) error {
	rounds := flag.Int("rounds", 15, "rentals and cold starts to take the median of")
	windows := flag.Int("windows", 5, "windows of 30 s to watch the idle agent for")
	only := flag.String("only", "", "part to measure, of start, rentals, many, idle, tray, heartbeat and shield; \"\": all")
	flag.Parse()
	if *rounds < 1 || *windows < 1 {
		return fmt.Errorf("-rounds %d -windows %d: both take at least 1", *rounds, *windows)
	}

	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "distributed-agent")
	if err := build(ctx, program); err != nil {
		return err
	}
	private, err := engine.Start(ctx, engine.Options{})
	if err != nil {
		return err
	}
	defer private.Stop()
	place, err := market.Open(ctx, market.Options{Dir: filepath.Join(dir, "market"), DockerHost: private.Host()})
	if err != nil {
		return err
	}
	defer place.Close()
	b := &bench{Market: place, program: program, docker: private.Host()}
	defer b.stop()

	if _, err := b.startUp(ctx, 1); err != nil { // makes the node known
		return err
	}
	var figures []figure
	for _, part := range []struct {
		name    string
		measure func(context.Context) ([]figure, error)
	}{
		{"start", func(ctx context.Context) ([]figure, error) { return b.startUp(ctx, *rounds) }},
		{"rentals", func(ctx context.Context) ([]figure, error) { return b.rentals(ctx, *rounds) }},
		{"many", b.many},
		{"idle", func(ctx context.Context) ([]figure, error) { return b.idle(ctx, *windows) }},
		{"tray", func(ctx context.Context) ([]figure, error) { return b.tray(ctx, *rounds, *windows) }},
		{"heartbeat", heartbeat},
		{"shield", shielding},
	} {
		if *only != "" && *only != part.name {
			continue
		}
		some, err := part.measure(ctx)
		if err != nil {
			return err
		}
		figures = append(figures, some...)
	}
	return report(figures)
}

// build makes the program as it is shipped.
func build(ctx context.Context, program string) error {
	out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./app").CombinedOutput()
	if err != nil {
		return fmt.Errorf("building the agent: %w\n%s", err, out)
	}
	return nil
}

func report(figures []figure) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', tabwriter.TabIndent)
	fmt.Fprintln(table, "figure\tvalue\tgoal\tmet")
	missed := 0
	for _, f := range figures {
		met := "yes"
		if !f.met() {
			met = "no"
			missed++
		}
		fmt.Fprintf(table, "%s\t%.3g %s\t≤ %.3g %s\t%s\n", f.name, f.value, f.unit, f.goal, f.unit, met)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if missed > 0 {
		return fmt.Errorf("%d of %d figures miss their goal", missed, len(figures))
	}
	return nil
}

// progress tells a person what is being measured; the table alone goes to standard output.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
