package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/workload/report"
)

// visit opens the rental's public address as a renter would, who tries again for a while: the
// tunnel stands as soon as the container runs, and the program in it takes a moment to listen.
func visit(ctx context.Context, address string) (report.Rental, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		got, err := open(ctx, address)
		if err == nil {
			return got, nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return report.Rental{}, fmt.Errorf("opening the rental's public address: %w", err)
		}
	}
}

func open(ctx context.Context, address string) (got report.Rental, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/json", nil)
	if err != nil {
		return got, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return got, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return got, err
	}
	if err := json.Unmarshal(body, &got); err != nil {
		return got, fmt.Errorf("it answered %s, not the workload's page", response.Status)
	}
	return got, nil
}

// check compares what the renter got with what was ordered.
func check(got report.Rental, order protocol.StartInstance) error {
	var broken []error
	if got.MemoryBytes != int64(order.RAMLimit) {
		broken = append(broken, fmt.Errorf("memory limit is %d bytes, ordered were %d", got.MemoryBytes, order.RAMLimit))
	}
	if got.CPUs != order.CPUCores {
		broken = append(broken, fmt.Errorf("CPU limit is %got, ordered were %got", got.CPUs, order.CPUCores))
	}
	if got.PidsLimit == 0 {
		broken = append(broken, errors.New("processes are not limited"))
	}
	if got.GPUsVisible == "all" {
		broken = append(broken, errors.New("the image asked for all GPUs and was not refused"))
	}
	if !got.NoNewPrivs {
		broken = append(broken, errors.New("programs can gain privileges"))
	}
	for _, dangerous := range []string{"SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SYS_PTRACE", "SYS_MODULE"} {
		if slices.Contains(got.Capabilities, dangerous) {
			broken = append(broken, fmt.Errorf("it has the capability %s", dangerous))
		}
	}
	if len(broken) > 0 {
		return fmt.Errorf("the rental is not what was promised: %w", errors.Join(broken...))
	}
	return nil
}

// refuses reports an error unless nothing listens on a public address any more.
func refuses(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("the public address %s still answers after the rental's end", address)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("the public address %s does not refuse as it should: %w", address, err)
	}
	return nil
}
