package docker_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
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

// BenchmarkWay compares the two ways to a rental: a port that the engine publishes, which a program of its own passes on, and
// the container's own address. A request takes a connection of its own; the stream is bytes that the rental takes in.
func BenchmarkWay(b *testing.B) {
	for _, way := range []string{"published", "own-address"} {
		b.Run(way, func(b *testing.B) {
			e := newEngine(b)
			if way == "published" {
				e.Publish()
			}
			c := rent(b, e, spec("way"))
			report(b, c)
			address := "http://" + c.Routes[0].Target.String()
			client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			var took []time.Duration
			var passed int64
			var streaming time.Duration
			for b.Loop() {
				for range 200 {
					began := time.Now()
					response, err := client.Get(address + "/json")
					if err != nil {
						b.Fatal(err)
					}
					_, err = io.Copy(io.Discard, response.Body)
					response.Body.Close()
					if err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(began))
				}
				began := time.Now()
				passed += pour(b, c.Routes[0].Target.String(), 512<<20)
				streaming += time.Since(began)
			}
			b.ReportMetric(milliseconds(took), "request-ms")
			b.ReportMetric(float64(passed)/streaming.Seconds()/1e6, "MB/s")
			b.ReportMetric(float64(proxies(b)), "docker-proxies")
		})
	}
}

// pour sends a request with a body of so many bytes, and returns when all of them have been taken in.
func pour(b *testing.B, address string, size int64) int64 {
	b.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /sink HTTP/1.1\r\nHost: rental\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", size)
	chunk := make([]byte, 1<<20)
	for sent := int64(0); sent < size; sent += int64(len(chunk)) {
		if _, err := conn.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	answer, err := io.ReadAll(conn)
	if want := fmt.Sprint(size, " <nil>"); err != nil || !strings.Contains(string(answer), want) {
		b.Fatalf("answer %q, %v; want %q", answer, err, want)
	}
	return size
}

// proxies counts the programs by which this engine passes on published ports.
func proxies(b *testing.B) int {
	b.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		b.Fatal(err)
	}
	count := 0
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(text)) == "docker-proxy" {
			count++
		}
	}
	return count
}
