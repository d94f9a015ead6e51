//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/backend"
	"github.com/distributedcompute/host-agent/sandbox/market"
)

// bench is a marketplace and the agent on it.
type bench struct {
	*market.Market
	program string
	docker  string // address of the engine
	agent   *exec.Cmd
	node    string
}

// start runs the agent and returns when it was started.
func (b *bench) start() (time.Time, error) { return b.run(nil, "start", "--headless") }

// run runs the program with a command and returns when it was started.
func (b *bench) run(env []string, command ...string) (time.Time, error) {
	b.agent = exec.Command(b.program, append(command, "--config", b.Config())...)
	b.agent.Env = append(market.WithoutSettings(os.Environ()), env...)
	b.agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getenv("BENCH_LOG") != "" {
		b.agent.Stderr = os.Stderr
	}
	began := time.Now()
	if err := b.agent.Start(); err != nil {
		return began, fmt.Errorf("starting the agent: %w", err)
	}
	return began, nil
}

// stop ends the agent if it runs.
func (b *bench) stop() {
	if b.agent != nil {
		_ = b.agent.Process.Kill()
		_ = b.agent.Wait()
		b.agent = nil
	}
}

// startUp measures from the start of the process to its first heartbeat and to its full registration.
func (b *bench) startUp(ctx context.Context, rounds int) ([]figure, error) {
	progress("start-up, %d times", rounds)
	var beats, registrations []float64
	for range rounds {
		b.stop()
		mark := b.Backend.Mark()
		began, err := b.start()
		if err != nil {
			return nil, err
		}
		beat, err := b.wait(ctx, mark, func(e backend.Event) bool {
			_, ok := e.Message.(*protocol.Heartbeat)
			return ok
		})
		if err != nil {
			return nil, fmt.Errorf("waiting for the first heartbeat: %w", err)
		}
		full, err := b.wait(ctx, mark, func(e backend.Event) bool {
			register, ok := e.Message.(*protocol.Register)
			return ok && register.Hardware.System.CPUModel != nil && register.Hardware.Docker != nil && register.Accepting
		})
		if err != nil {
			return nil, fmt.Errorf("waiting for the full registration: %w", err)
		}
		b.node = beat.Node
		beats = append(beats, milliseconds(beat.At.Sub(began)))
		registrations = append(registrations, milliseconds(full.At.Sub(began)))
	}
	return []figure{
		{"start → first heartbeat, median", median(beats), "ms", 100},
		{"start → registered with the full survey, median", median(registrations), "ms", 500},
	}, nil
}

func (b *bench) wait(ctx context.Context, mark int, match func(backend.Event) bool) (backend.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return b.Backend.WaitEvent(ctx, mark, match)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// median of at least one value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}
