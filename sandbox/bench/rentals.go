//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/backend"
	"github.com/distributedcompute/host-agent/sandbox/market"
)

// rentals measures order → container running against `docker run -d` of the same image with the same
// limits, in turns, and container running → public port answering. A rental has a network of its own; what
// that costs inside the engine shows between the two ways to run docker: on such a network, made
// beforehand, and on Docker's default one.
func (b *bench) rentals(ctx context.Context, rounds int) ([]figure, error) {
	progress("rentals, %d times, in turns with docker run -d", rounds)
	var ours, own, plain, answered []float64
	for round := range rounds + 1 {
		running, answers, err := b.rent(ctx)
		if err != nil {
			return nil, err
		}
		isolated, err := b.dockerRunOnOwnNetwork(ctx)
		if err != nil {
			return nil, err
		}
		shared, err := b.dockerRun(ctx, "bridge")
		if err != nil {
			return nil, err
		}
		if round == 0 { // pulls the image and fills caches
			continue
		}
		ours = append(ours, milliseconds(running))
		answered = append(answered, milliseconds(answers))
		own = append(own, milliseconds(isolated))
		plain = append(plain, milliseconds(shared))
	}
	progress("medians: order → container running %.0f ms, docker run -d %.0f ms, on a network of its own %.0f ms",
		median(ours), median(plain), median(own))
	return []figure{
		{"order → container running, against docker run -d", median(ours) / median(plain), "×", 1.25},
		{"the same, docker run on a network of its own too", median(ours) / median(own), "×", 1.10},
		{"container running → public port answers, median", median(answered), "ms", 100},
	}, nil
}

// rent takes one rental through its life.
func (b *bench) rent(ctx context.Context) (running, answers time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	mark, began := b.Backend.Mark(), time.Now()
	order, err := b.Rent(ctx, market.Rent{Node: b.node, RAMBytes: 128 << 20, ShmBytes: 32 << 20, Ports: []string{"8080"}})
	if err != nil {
		return 0, 0, fmt.Errorf("ordering: %w", err)
	}
	state := func(name string) (backend.Event, error) {
		return b.Backend.WaitEvent(ctx, mark, func(e backend.Event) bool {
			status, ok := e.Message.(*protocol.InstanceStatus)
			return ok && status.RentalID == order.RentalID && (status.State == name || status.Final())
		})
	}
	tunnelling, err := state("tunnelling")
	if err != nil {
		return 0, 0, fmt.Errorf("waiting for the container: %w", err)
	}
	var address string
	for _, port := range order.PortMapping {
		address = net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
	}
	answeredAt, err := firstAnswer(ctx, address)
	if err != nil {
		return 0, 0, err
	}
	if _, err := state("running"); err != nil {
		return 0, 0, fmt.Errorf("waiting for the rental: %w", err)
	}
	if _, err := b.Backend.StopInstance(ctx, b.node, protocol.StopInstance{RentalID: order.RentalID}); err != nil {
		return 0, 0, fmt.Errorf("stopping: %w", err)
	}
	if _, err := b.Backend.WaitState(ctx, order.RentalID, "stopped"); err != nil {
		return 0, 0, fmt.Errorf("waiting for the stop: %w", err)
	}
	return tunnelling.At.Sub(began), answeredAt.Sub(tunnelling.At), nil
}

// firstAnswer is when an address first served the workload's page.
func firstAnswer(ctx context.Context, address string) (time.Time, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	for ctx.Err() == nil {
		response, err := client.Get("http://" + address + "/json")
		if err == nil {
			response.Body.Close()
			return time.Now(), nil
		}
		time.Sleep(time.Millisecond) // a refused connection costs nothing; the answer is what is timed
	}
	return time.Time{}, errors.New(address + " does not answer")
}

// dockerRun is what a person would type.
func (b *bench) dockerRun(ctx context.Context, network string) (time.Duration, error) {
	began := time.Now()
	id, err := b.cli(ctx, "run", "-d", "--network", network, "--cpus", fmt.Sprint(market.DefaultCPUs),
		"--memory", "128m", "--memory-swap", "128m", "--shm-size", "32m", "--pids-limit", "4096",
		"-p", "127.0.0.1::8080", b.Image)
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	_, err = b.cli(ctx, "rm", "-f", "-v", id)
	return took, err
}

func (b *bench) dockerRunOnOwnNetwork(ctx context.Context) (took time.Duration, err error) {
	network, err := b.cli(ctx, "network", "create", "bench")
	if err != nil {
		return 0, err
	}
	defer func() {
		_, removal := b.cli(context.WithoutCancel(ctx), "network", "rm", network)
		err = errors.Join(err, removal)
	}()
	return b.dockerRun(ctx, network)
}

// cli runs one docker command and returns what it prints.
func (b *bench) cli(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "docker", append([]string{"-H", b.docker}, args...)...).Output()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}
