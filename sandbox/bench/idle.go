//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const window = 30 * time.Second

// idle watches the agent while it is registered, its relay connected, and nothing is rented.
func (b *bench) idle(ctx context.Context, windows int) ([]figure, error) {
	if _, err := b.startUp(ctx, 1); err != nil {
		return nil, err
	}
	return b.watch("idle", windows, 25, 20, 10)
}

// watch tells what the agent uses that is running, and what of it is the most it may be: MB of memory, ms of CPU
// time a minute, voluntary switches a second.
func (b *bench) watch(name string, windows int, memory, busy, switching float64) ([]figure, error) {
	time.Sleep(10 * time.Second) // start-up is over
	progress("%s, %d windows of %v", name, windows, window)
	var cpu, switches []float64
	before, err := readUsage(b.agent.Process.Pid)
	if err != nil {
		return nil, err
	}
	for range windows {
		time.Sleep(window)
		after, err := readUsage(b.agent.Process.Pid)
		if err != nil {
			return nil, err
		}
		cpu = append(cpu, milliseconds(after.cpu-before.cpu)*float64(time.Minute)/float64(window))
		switches = append(switches, float64(after.switches-before.switches)/window.Seconds())
		before = after
	}
	return []figure{
		{name + ": resident memory", float64(before.rss) / 1e6, "MB", memory},
		{name + ": CPU time, median window", median(cpu), "ms/min", busy},
		{name + ": voluntary context switches, median window", median(switches), "/s", switching},
	}, nil
}

// usage is what a process has used so far.
type usage struct {
	cpu      time.Duration
	switches int64
	rss      int64 // bytes
}

// readUsage sums over the threads: schedstat counts nanoseconds where stat counts hundredths of a second.
func readUsage(pid int) (usage, error) {
	var u usage
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(threads) == 0 {
		return u, fmt.Errorf("the agent (pid %d) is gone", pid)
	}
	for _, thread := range threads {
		text, err := os.ReadFile(filepath.Join(thread, "schedstat"))
		if err != nil {
			continue // the thread has just ended
		}
		var ran int64
		if _, err := fmt.Sscan(string(text), &ran); err != nil {
			return u, fmt.Errorf("reading schedstat: %w", err)
		}
		u.cpu += time.Duration(ran)
		n, err := statusField(filepath.Join(thread, "status"), "voluntary_ctxt_switches")
		if err != nil {
			return u, err
		}
		u.switches += n
	}
	kib, err := statusField(fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
	u.rss = kib << 10
	return u, err
}

func statusField(path, name string) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("reading usage: %w", err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			return strconv.ParseInt(strings.Fields(value)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

var benchLine = regexp.MustCompile(`(?m)^Benchmark(\w+)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op`)

// heartbeat compares gathering and encoding one heartbeat with gathering the same values through
// gopsutil alone; both are benchmarks of the packages that do the work.
func heartbeat(ctx context.Context) ([]figure, error) {
	progress("heartbeat")
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^Benchmark(Sample|GopsutilSame|EncodeHeartbeat)$",
		"./core/hardware", "./core/backend/protocol").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("running the heartbeat benchmarks: %w\n%s", err, out)
	}
	took := map[string]float64{}
	for _, match := range benchLine.FindAllStringSubmatch(string(out), -1) {
		if took[match[1]], err = strconv.ParseFloat(match[2], 64); err != nil {
			return nil, fmt.Errorf("reading %q: %w", match[0], err)
		}
	}
	for _, name := range []string{"Sample", "GopsutilSame", "EncodeHeartbeat"} {
		if took[name] == 0 {
			return nil, fmt.Errorf("finding benchmark %s in its output:\n%s", name, out)
		}
	}
	ratio := (took["Sample"] + took["EncodeHeartbeat"]) / took["GopsutilSame"]
	return []figure{{"gather and encode a heartbeat, against gopsutil alone", ratio, "×", 0.2}}, nil
}
