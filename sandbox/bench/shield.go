//go:build linux

package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

var processorLine = regexp.MustCompile(`(?m)^Benchmark(\w+)(?:-\d+)?\s.*?([\d.]+) cpu-ms/op`)

// shielding measures what it takes to see that the shield stands among 50 rentals: a look in full, and the question every
// second whether one is needed. Both are benchmarks of the package that does the work, which makes a network for them.
func shielding(ctx context.Context) ([]figure, error) {
	progress("shield")
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^Benchmark(Look|Generation)$", "./core/shield").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("running the shield's benchmarks: %w\n%s", err, out)
	}
	took := map[string]float64{}
	for _, match := range processorLine.FindAllStringSubmatch(string(out), -1) {
		if took[match[1]], err = strconv.ParseFloat(match[2], 64); err != nil {
			return nil, fmt.Errorf("reading %q: %w", match[0], err)
		}
	}
	for _, name := range []string{"Look", "Generation"} {
		if took[name] == 0 {
			return nil, fmt.Errorf("finding benchmark %s in its output:\n%s", name, out)
		}
	}
	return []figure{
		{"shield check with 50 rentals, CPU", took["Look"], "ms", 5},
		{"shield check every second, CPU", took["Generation"], "ms", 0.5},
	}, nil
}
