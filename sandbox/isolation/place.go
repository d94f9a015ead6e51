//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/backend"
	"github.com/distributedcompute/host-agent/sandbox/engine"
	"github.com/distributedcompute/host-agent/sandbox/market"
	"github.com/distributedcompute/host-agent/sandbox/wiretap"
	"github.com/distributedcompute/host-agent/sandbox/workload"
)

const (
	// patience bounds every wait for something that has to happen.
	patience = time.Minute
	pace     = 1 // seconds between heartbeats: the closest that a backend can ask for
	// reserveBytes is the "32m" of the settings.
	reserveBytes = 32 << 20
)

// gpus are those of the stand-in for NVIDIA's library. The last is not offered.
const gpus = `GPU-11111111-2222-3333-4444-555555555555|NVIDIA GeForce RTX 4090|24564|512|7|41|70|450|30|8.9|00000000:01:00.0|4|16
GPU-22222222-2222-3333-4444-555555555555|NVIDIA GeForce RTX 4090|24564|512|8|42|70|450|30|8.9|00000000:02:00.0|4|16
GPU-33333333-2222-3333-4444-555555555555|NVIDIA GeForce RTX 4090|24564|512|8|42|70|450|30|8.9|00000000:03:00.0|4|16
`

// settings are the owner's, so that there is something for each refusal to be about.
var settings = []string{
	"DISTRIBUTED_AGENT_OFFER_GPUS=0,1",
	"DISTRIBUTED_AGENT_OFFER_MIN_PRICE_PER_GPU_HOUR=0.05",
	"DISTRIBUTED_AGENT_LIMITS_MAX_SHM=32m",
	"DISTRIBUTED_AGENT_LIMITS_PIDS=256",
	"DISTRIBUTED_AGENT_LIMITS_DISK_RESERVE=32m",
	"DISTRIBUTED_AGENT_IMAGES_DENY_REGISTRIES=ghcr.io,quay.io:8443,docker.io/forbidden,127.0.0.1/forbidden",
}

// forbiddenImage is in the marketplace's own registry, where only the owner's list keeps it from being rented.
const forbiddenImage = "forbidden/tool:1"

// place is a host to be proven on: a private engine with a tap before it, a marketplace, and the built agent between
// the two.
type place struct {
	*market.Market
	dir     string
	program string // the agent
	guest   string // program of the workload image
	lan     *lan
	engine  *engine.Engine
	docker  docker
	tap     *wiretap.Tap
	agent   *exec.Cmd
	gone    chan struct{} // closed when the agent has ended
	log     *os.File      // what the agent says
	node    string
}

// openPlace builds and starts everything but the agent. storage is the file system of the engine's data, "ext4" or "btrfs".
func openPlace(ctx context.Context, storage string) (_ *place, err error) {
	dir, err := os.MkdirTemp("", "isolation-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	p := &place{dir: dir, program: filepath.Join(dir, "distributed-agent")}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := p.build(ctx); err != nil {
		return nil, err
	}
	if p.log, err = os.Create(filepath.Join(dir, "agent.log")); err != nil {
		return nil, fmt.Errorf("opening the agent's log: %w", err)
	}
	if p.lan, err = openLAN(ctx); err != nil {
		return nil, err
	}
	if p.engine, err = engine.Start(ctx, engine.Options{LiveRestore: true, FakeNVIDIA: true, Storage: storage, StorageBytes: 4 << 30}); err != nil {
		return nil, err
	}
	p.docker = dialDocker(p.engine.Host())
	if p.tap, err = wiretap.Start(p.engine.Host(), filepath.Join(dir, "tap", "docker.sock")); err != nil {
		return nil, err
	}
	guest, err := workload.Build(ctx)
	if err != nil {
		return nil, err
	}
	p.guest = filepath.Join(dir, "guest")
	if err := os.WriteFile(p.guest, guest, 0o755); err != nil {
		return nil, fmt.Errorf("writing the workload: %w", err)
	}
	p.Market, err = market.Open(ctx, market.Options{
		Dir: filepath.Join(dir, "market"), DockerHost: p.tap.Host(), HeartbeatIntervalS: pace, Workload: guest,
	})
	return p, err
}

// build makes the agent, and the stand-in for NVIDIA's library with its cards.
func (p *place) build(ctx context.Context) error {
	const module = "github.com/distributedcompute/host-agent"
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return fmt.Errorf("finding the sources: %w", err)
	}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", p.program, module+"/app").CombinedOutput(); err != nil {
		return fmt.Errorf("building the agent: %w\n%s", err, out)
	}
	source := filepath.Join(string(bytes.TrimSpace(root)), "core/hardware/testdata/nvml/nvml.c")
	library := filepath.Join(p.dir, "libnvidia-ml.so.1")
	compile := exec.CommandContext(ctx, "gcc", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", library, source)
	if out, err := compile.CombinedOutput(); err != nil {
		return fmt.Errorf("compiling the stand-in for NVIDIA's library: %w\n%s", err, out)
	}
	return os.WriteFile(filepath.Join(p.dir, "gpus"), []byte(gpus), 0o600)
}

// close ends everything and removes it.
func (p *place) close() error {
	p.stopAgent()
	var failures []error
	if p.Market != nil {
		failures = append(failures, p.Market.Close())
	}
	if p.tap != nil {
		failures = append(failures, p.tap.Close())
	}
	if p.engine != nil {
		failures = append(failures, p.engine.Stop())
	}
	if p.lan != nil {
		failures = append(failures, p.lan.close())
	}
	if p.log != nil {
		failures = append(failures, p.log.Close())
	}
	return errors.Join(append(failures, os.RemoveAll(p.dir))...)
}

// startAgent runs the agent and returns when it accepts rentals.
func (p *place) startAgent(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	mark := p.Backend.Mark()
	p.agent = exec.Command(p.program, "start", "--headless", "--config", p.Config())
	p.agent.Env = append(market.WithoutSettings(os.Environ()), settings...)
	p.agent.Env = append(p.agent.Env, "LD_LIBRARY_PATH="+p.dir, "NVML_SHIM="+p.dir)
	p.agent.Stdout, p.agent.Stderr = p.log, p.log
	if err := p.agent.Start(); err != nil {
		p.agent = nil
		return fmt.Errorf("starting the agent: %w", err)
	}
	agent, gone := p.agent, make(chan struct{})
	p.gone = gone
	go func() {
		defer close(gone)
		_ = agent.Wait() // how it ended is in its log
		cancel()
	}()
	event, err := p.Backend.WaitEvent(ctx, mark, func(e backend.Event) bool {
		register, ok := e.Message.(*protocol.Register)
		return ok && register.Accepting && len(register.Offer.GPUIndices) == 2
	})
	if err != nil {
		return fmt.Errorf("waiting until the agent takes rentals: %w%s", err, p.lastWords())
	}
	p.node = event.Node
	return nil
}

// stopAgent ends the agent as a power cut would.
func (p *place) stopAgent() {
	if p.agent != nil {
		_ = p.agent.Process.Kill()
		<-p.gone
		p.agent = nil
	}
}

// lastWords is the end of the agent's log, as the end of an error message.
func (p *place) lastWords() string {
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return ":\n" + strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// withLogs adds the end of what a rental has printed to an error.
func (p *place) withLogs(ctx context.Context, id string, err error) error {
	logs, asked := p.Backend.GetLogs(ctx, p.node, protocol.GetLogs{RentalID: id, Tail: 20})
	if asked != nil {
		logs.Text = asked.Error()
	}
	known, _ := p.Backend.Rental(id)
	return fmt.Errorf("%w; the rental is %+v, its output:\n%s%s", err, known.Latest(), logs.Text, p.lastWords())
}

// rent orders and waits until the rental runs.
func (p *place) rent(ctx context.Context, r market.Rent) (protocol.StartInstance, protocol.InstanceStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r.Node = p.node
	order, err := p.Rent(ctx, r)
	if err != nil {
		return order, protocol.InstanceStatus{}, fmt.Errorf("renting: %w", err)
	}
	status, err := p.Backend.WaitState(ctx, order.RentalID, "running")
	if err != nil {
		return order, status, fmt.Errorf("%w%s", err, p.lastWords())
	}
	if len(status.Ports) == 0 {
		return order, status, nil
	}
	return order, status, p.answering(ctx, status)
}

// end stops a rental and waits until it has ended.
func (p *place) end(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	graceful := false
	if _, err := p.Backend.StopInstance(ctx, p.node, protocol.StopInstance{RentalID: id, Graceful: &graceful}); err != nil {
		return fmt.Errorf("stopping rental %s: %w", id, err)
	}
	_, err := p.Backend.WaitState(ctx, id, "stopped")
	return err
}

// socket is the path of the one that the agent has.
func (p *place) socket() string { return strings.TrimPrefix(p.tap.Host(), "unix://") }

// page reads a page of a rental's program over its public address, as JSON where result is not a *string.
func (p *place) page(ctx context.Context, running protocol.InstanceStatus, path string, result any) error {
	return p.pageAt(ctx, running.Ports[0].PublicAddress, path, result)
}

// pageAt is page for a program at an address.
func (p *place) pageAt(ctx context.Context, address, path string, result any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	body, err := get(ctx, "http://"+address+path)
	if err != nil {
		return fmt.Errorf("asking the rental's program: %w", err)
	}
	if text, plain := result.(*string); plain {
		*text = string(body)
		return nil
	}
	return json.Unmarshal(body, result)
}

// answering waits until a rental's program answers: the way to it is open a little earlier than its ears.
func (p *place) answering(ctx context.Context, running protocol.InstanceStatus) error {
	for {
		var ignored string
		err := p.page(ctx, running, "/json", &ignored)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func get(ctx context.Context, address string) ([]byte, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %s: %s", response.Status, body)
	}
	return body, err
}

// quiet waits until the agent has asked nothing of the engine that may change something for a while: it keeps a
// network in stock, and tries things out when it starts.
func (p *place) quiet(ctx context.Context, calm time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	mark, since := p.tap.Mark(), time.Now()
	for time.Since(since) < calm {
		if len(p.tap.Mutating(mark)) > 0 {
			mark, since = p.tap.Mark(), time.Now()
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waiting until the agent leaves the engine alone: %w", ctx.Err())
		}
	}
	return nil
}

// progress tells a person what is being done; the lines alone go to standard output.
func progress(out io.Writer, format string, args ...any) {
	fmt.Fprintf(out, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
