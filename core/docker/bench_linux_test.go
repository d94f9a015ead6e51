package docker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
)

// BenchmarkStart compares how long a rental of a cached image takes to run with the docker command
// given the same limits: once with its default network, once with a bridge of its own as rentals have. The ways take
// turns, so that whatever else the machine does hits them alike. Medians; the ratio is agent to command.
func BenchmarkStart(b *testing.B) {
	e := newEngine(b)
	changed := watch(b, e)
	until(b, e, changed, func(i rental.EngineInfo) bool { return i.Available })
	pull(b, e, image)
	cli(b, "network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "bench")
	b.Cleanup(func() { cli(b, "network", "rm", "bench") })
	limits := []string{
		"run", "-d", "--name", "bench", "--memory", "256m", "--memory-swap", "256m", "--cpus", "1", "--pids-limit", "256",
		"--init", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "-p", "127.0.0.1::8080", "-p", "127.0.0.1::9090/udp",
	}
	var agent, plain, own []time.Duration
	command := func(took *[]time.Duration, more ...string) {
		began := time.Now()
		cli(b, append(append(slices.Clone(limits), more...), image)...)
		*took = append(*took, time.Since(began))
		cli(b, "rm", "-f", "bench")
	}
	for turn := 0; b.Loop(); turn++ {
		if !eventually(b, func() bool { return spares(b) == 1 }) {
			b.Fatal("no network in stock")
		}
		s := spec(rental.ID(fmt.Sprintf("bench-%d", turn)))
		began := time.Now()
		id, err := e.Create(b.Context(), s, pull(b, e, image))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := e.Start(b.Context(), id); err != nil {
			b.Fatal(err)
		}
		agent = append(agent, time.Since(began))
		if err := e.Remove(b.Context(), s.ID, ""); err != nil {
			b.Fatal(err)
		}
		command(&plain)
		command(&own, "--network", "bench")
	}
	b.ReportMetric(milliseconds(agent), "agent-ms")
	b.ReportMetric(milliseconds(plain), "docker-run-ms")
	b.ReportMetric(milliseconds(own), "docker-run-own-network-ms")
	b.ReportMetric(milliseconds(agent)/milliseconds(plain), "ratio")
	b.ReportMetric(milliseconds(agent)/milliseconds(own), "ratio-own-network")
}

// milliseconds is the median.
func milliseconds(took []time.Duration) float64 {
	slices.Sort(took)
	return float64(took[len(took)/2].Microseconds()) / 1000
}

// spares counts the agent's networks.
func spares(b *testing.B) int {
	return len(strings.Fields(cli(b, "network", "ls", "-q", "--filter", "label=distributedcompute.managed")))
}
