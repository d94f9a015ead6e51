//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/backend"
	"github.com/distributedcompute/host-agent/sandbox/market"
)

const (
	crowd = 50  // rentals at once
	asked = 500 // times that the agent is asked for its status meanwhile
)

// many measures an agent that has a crowd of rentals: how soon it answers, and what it takes of memory.
func (b *bench) many(ctx context.Context) ([]figure, error) {
	b.stop()
	progress("%d rentals at once", crowd)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	mark := b.Backend.Mark()
	if _, err := b.run([]string{fmt.Sprintf("DISTRIBUTED_AGENT_LIMITS_RENTALS=%d", crowd)}, "start", "--headless"); err != nil {
		return nil, err
	}
	ids, err := b.crowd(ctx, mark)
	if err != nil {
		return nil, err
	}
	took, err := b.statuses(ctx)
	if err != nil {
		return nil, err
	}
	used, err := readUsage(b.agent.Process.Pid)
	if err != nil {
		return nil, err
	}
	if err := b.disperse(ctx, ids); err != nil {
		return nil, err
	}
	return []figure{
		{fmt.Sprintf("status with %d rentals, p99 of %d", crowd, asked), milliseconds(took[len(took)*99/100]), "ms", 10},
		{fmt.Sprintf("resident memory with %d rentals", crowd), float64(used.rss) / 1e6, "MB", 40},
	}, nil
}

// crowd rents as often as it takes and returns when all rentals run.
func (b *bench) crowd(ctx context.Context, mark int) ([]string, error) {
	if _, err := b.wait(ctx, mark, func(e backend.Event) bool {
		register, ok := e.Message.(*protocol.Register)
		return ok && register.Accepting
	}); err != nil {
		return nil, fmt.Errorf("waiting until rentals are accepted: %w", err)
	}
	var ids []string
	for range crowd {
		order, err := b.Rent(ctx, market.Rent{
			Node: b.node, CPUs: 0.01, RAMBytes: 64 << 20, ShmBytes: 1 << 20, DiskBytes: 32 << 20, Ports: []string{"8080"},
		})
		if err != nil {
			return nil, fmt.Errorf("ordering rental %d: %w", len(ids)+1, err)
		}
		ids = append(ids, order.RentalID)
	}
	for _, id := range ids {
		if _, err := b.Backend.WaitState(ctx, id, "running"); err != nil {
			return nil, fmt.Errorf("waiting for a rental: %w", err)
		}
	}
	return ids, nil
}

func (b *bench) disperse(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if _, err := b.Backend.StopInstance(ctx, b.node, protocol.StopInstance{RentalID: id}); err != nil {
			return fmt.Errorf("stopping: %w", err)
		}
	}
	for _, id := range ids {
		if _, err := b.Backend.WaitState(ctx, id, "stopped"); err != nil {
			return fmt.Errorf("waiting for a stop: %w", err)
		}
	}
	return nil
}

// statuses asks for the status again and again and returns how long the answers took, ascending.
func (b *bench) statuses(ctx context.Context) ([]time.Duration, error) {
	took := make([]time.Duration, 0, asked)
	for range asked {
		began := time.Now()
		host, err := b.status(ctx)
		if err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
		if len(host.Rentals) != crowd {
			return nil, fmt.Errorf("the status tells of %d rentals, not of %d", len(host.Rentals), crowd)
		}
		time.Sleep(5 * time.Millisecond)
	}
	slices.Sort(took)
	return took, nil
}

// hostStatus is what is looked at of a status.
type hostStatus struct {
	Rentals []json.RawMessage `json:"rentals"`
}

// status asks the agent as the command line and the tray do, over its control socket.
func (b *bench) status(ctx context.Context) (hostStatus, error) {
	socket := filepath.Join(b.Dir, "state", "control.sock")
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://distributed-agent/v1/status", nil)
	if err != nil {
		return hostStatus{}, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return hostStatus{}, fmt.Errorf("asking for the status: %w", err)
	}
	defer answer.Body.Close()
	var host hostStatus
	if err := json.NewDecoder(answer.Body).Decode(&host); err != nil || answer.StatusCode != http.StatusOK {
		return hostStatus{}, fmt.Errorf("reading the status: answered %s: %w", answer.Status, err)
	}
	return host, nil
}
