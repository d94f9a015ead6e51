//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/backend"
	"github.com/distributedcompute/host-agent/sandbox/engine"
	"github.com/distributedcompute/host-agent/sandbox/market"
	"github.com/distributedcompute/host-agent/sandbox/workload"
	"github.com/distributedcompute/host-agent/sandbox/workload/report"
)

// patience bounds every wait for something that has to happen.
const patience = 60 * time.Second

// lab is what all tests of a run share: building the program and starting an engine take seconds.
type lab struct {
	agent  string // the built program
	nvml   string // folder with the NVML stand-in
	engine *engine.Engine
	docker docker
	guest  []byte // program of the workload image
}

var shared lab

func TestMain(m *testing.M) {
	os.Exit(engine.Isolated(func() int {
		dir, err := os.MkdirTemp("", "e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := shared.set(dir); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		defer shared.engine.Stop()
		return m.Run()
	}))
}

// set builds the agent and the NVML stand-in, and starts the engine.
func (l *lab) set(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	l.agent = filepath.Join(dir, "distributed-agent")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", l.agent, "../../app").CombinedOutput(); err != nil {
		return fmt.Errorf("building the agent: %w\n%s", err, out)
	}
	// An agent that is not root has its shield put up by this, in a container.
	guard := exec.CommandContext(ctx, "go", "build", "-o", l.agent+"-shield", "../../app/shield")
	guard.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := guard.CombinedOutput(); err != nil {
		return fmt.Errorf("building the shield's program: %w\n%s", err, out)
	}
	l.nvml = filepath.Join(dir, "nvml")
	if err := os.Mkdir(l.nvml, 0o700); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	sources, err := filepath.Glob("../../core/hardware/testdata/nvml/*.c")
	if err != nil || len(sources) == 0 {
		return fmt.Errorf("finding the NVML stand-in: %w", errors.Join(err, os.ErrNotExist))
	}
	args := append([]string{"-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", filepath.Join(l.nvml, "libnvidia-ml.so.1")}, sources...)
	if out, err := exec.CommandContext(ctx, "gcc", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("compiling the NVML stand-in: %w\n%s", err, out)
	}
	if l.guest, err = workload.Build(ctx); err != nil {
		return err
	}
	if l.engine, err = engine.Start(ctx, engine.Options{FakeNVIDIA: true}); err != nil {
		return err
	}
	l.docker = dialDocker(l.engine.Host())
	return l.open(dir)
}

// open lets agents of other users have the program and the engine, as members of a docker group have.
func (l *lab) open(dir string) error {
	socket := strings.TrimPrefix(l.engine.Host(), "unix://")
	return errors.Join(os.Chmod(dir, 0o711), os.Chmod(filepath.Dir(socket), 0o711), os.Chmod(socket, 0o666))
}

// world is one test's marketplace and host: everything but the engine is its own.
type world struct {
	t   *testing.T
	ctx context.Context
	*market.Market
	node  string   // set by start
	agent *process // the one that was started last
	env   []string // for the agent
	user  uint32   // whom the agent runs for
}

// options vary a world; the zero value is the usual one.
type options struct {
	seedOnly  bool
	signedOut bool
	gpus      string // lines for the NVML stand-in, whose source tells their form
	dir       string // of the marketplace; "": a fresh one, for root alone
}

func newWorld(t *testing.T, o options) *world {
	t.Helper()
	w := &world{t: t, ctx: t.Context()}
	var err error
	if o.dir == "" {
		o.dir = t.TempDir()
	}
	w.Market, err = market.Open(w.ctx, market.Options{
		Dir: o.dir, DockerHost: shared.engine.Host(), SeedOnly: o.seedOnly, SignedOut: o.signedOut, Workload: shared.guest,
	})
	w.must(err)
	t.Cleanup(func() { w.must(w.Market.Close()) })
	t.Cleanup(w.sweep)
	if o.gpus != "" {
		w.must(os.WriteFile(filepath.Join(w.Dir, "gpus"), []byte(o.gpus), 0o600))
		w.env = append(w.env, "LD_LIBRARY_PATH="+shared.nvml, "NVML_SHIM="+w.Dir)
	}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// within gives a context for one wait.
func (w *world) within() context.Context {
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	w.t.Cleanup(cancel)
	return ctx
}

// start runs the agent and waits for its node.
func (w *world) start() {
	w.t.Helper()
	mark := w.Backend.Mark()
	w.run()
	event, err := w.Backend.WaitEvent(w.within(), mark, func(e backend.Event) bool {
		_, beat := e.Message.(*protocol.Heartbeat)
		return beat && e.Node != ""
	})
	w.must(err)
	w.node = event.Node
}

// run starts the agent's process without waiting for more.
func (w *world) run() {
	w.t.Helper()
	w.process("start", "--headless", "--config", w.Config())
}

// process starts the program for the world's user.
func (w *world) process(args ...string) *process {
	w.t.Helper()
	w.agent = startProcess(w.t, w.user, w.env, shared.agent, args...)
	return w.agent
}

// cli runs one command of the program against the running agent and returns its output and exit code.
func (w *world) cli(args ...string) (string, int) {
	w.t.Helper()
	return w.cliWith("", args...)
}

// cliWith is cli with something on standard input.
func (w *world) cliWith(input string, args ...string) (string, int) {
	w.t.Helper()
	args = append(args, "--config", w.Config())
	cmd := exec.CommandContext(w.within(), shared.agent, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(market.WithoutSettings(os.Environ()), w.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: w.user, Gid: w.user}}
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), exit.ExitCode()
	}
	w.must(err)
	return string(out), 0
}

// status is what `status --json` says.
func (w *world) status() status {
	w.t.Helper()
	out, code := w.cli("status", "--json")
	if code != 0 {
		w.t.Fatalf("status exits %d: %s", code, out)
	}
	var s status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		w.t.Fatalf("reading status: %v\n%s", err, out)
	}
	return s
}

// status is the part of the agent's status that tests look at.
type status struct {
	Node struct {
		State string `json:"state"`
	} `json:"node"`
	Accepting bool   `json:"accepting"`
	Why       string `json:"not_accepting_because"`
	Backend   struct {
		Registered  bool   `json:"registered"`
		NeedsSignIn bool   `json:"needs_sign_in"`
		Problem     string `json:"problem"`
	} `json:"backend"`
	Engine struct {
		Available bool   `json:"available"`
		Problem   string `json:"problem"`
	} `json:"docker"`
	Relay struct {
		Connected bool   `json:"connected"`
		Problem   string `json:"problem"`
	} `json:"relay"`
	Rentals []struct {
		ID      string `json:"id"`
		State   string `json:"state"`
		Trouble string `json:"trouble"`
	} `json:"rentals"`
	Problems []struct {
		Code, Message, Fix string
	} `json:"problems"`
}

// eventually waits until ok holds; it asks ten times a second.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for ctx := w.within(); !ok(); {
		select {
		case <-ctx.Done():
			w.t.Fatalf("waited %s in vain: %s", patience, what)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// order is an ordinary rental of the workload that publishes its page.
func (w *world) order(id string) protocol.StartInstance {
	w.t.Helper()
	ports, err := w.Backend.PublicPorts(protocol.PortKey{Port: 8080, Protocol: "tcp"})
	w.must(err)
	return protocol.StartInstance{
		RentalID: id, Image: w.Image, GPUIndices: []int{},
		RAMLimit: 128 << 20, CPUCores: 0.5, DiskLimit: 64 << 20, ShmSize: 32 << 20,
		EnvVars: map[string]string{"GREETING": "hello"}, PortMapping: ports,
	}
}

// rent orders and waits until the rental runs; it returns its last status.
func (w *world) rent(order protocol.StartInstance) protocol.InstanceStatus {
	w.t.Helper()
	w.accept(order)
	return w.reach(order.RentalID, "running")
}

// accept orders and requires that the order is taken.
func (w *world) accept(order protocol.StartInstance) {
	w.t.Helper()
	// The first heartbeat does not wait for Docker.
	w.eventually("the agent accepts", func() bool { return w.status().Accepting })
	result, err := w.Backend.StartInstance(w.within(), w.node, order)
	w.must(err)
	if !result.OK {
		w.t.Fatalf("start_instance %s refused: %v", order.RentalID, result.Error)
	}
}

// reach waits for a state of a rental.
func (w *world) reach(id, state string) protocol.InstanceStatus {
	w.t.Helper()
	status, err := w.Backend.WaitState(w.within(), id, state)
	w.must(err)
	return status
}

// stop ends a rental and waits for its final state.
func (w *world) stop(id string) protocol.InstanceStatus {
	w.t.Helper()
	result, err := w.Backend.StopInstance(w.within(), w.node, protocol.StopInstance{RentalID: id})
	w.must(err)
	if !result.OK {
		w.t.Fatalf("stop_instance %s refused: %v", id, result.Error)
	}
	return w.reach(id, "stopped")
}

// fetch reads the workload's page over a public address, as a stranger would.
func fetch(ctx context.Context, address string) (report.Rental, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/json", nil)
	if err != nil {
		return report.Rental{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return report.Rental{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return report.Rental{}, fmt.Errorf("%s answers %s", address, response.Status)
	}
	var got report.Rental
	return got, json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&got)
}

// answers waits until a public address answers with the workload's page.
func (w *world) answers(address string) report.Rental {
	w.t.Helper()
	var got report.Rental
	w.eventually(address+" answers", func() bool {
		var err error
		got, err = fetch(w.ctx, address)
		return err == nil
	})
	return got
}

// refuses requires that nobody listens on an address any more.
func (w *world) refuses(address string) {
	w.t.Helper()
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		conn.Close()
		w.t.Errorf("%s still accepts connections", address)
	}
}

// sweep ends the agent and removes what a failed test left on the engine.
func (w *world) sweep() {
	if w.agent != nil {
		w.agent.kill()
		if w.t.Failed() {
			w.t.Logf("the agent's log:\n%s", w.agent.log.String())
		}
	}
	if shared.engine.Pid() == 0 { // the test ended between its end and its restart
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := shared.engine.Restart(ctx); err != nil {
			w.t.Fatalf("starting the engine again: %v", err)
		}
	}
	if err := shared.docker.removeAll(); err != nil {
		w.t.Errorf("clearing the engine: %v", err)
	}
}

// process is a running agent.
type process struct {
	cmd  *exec.Cmd
	log  *buffer
	done chan struct{}
}

func startProcess(t *testing.T, user uint32, env []string, program string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program, args...), log: &buffer{}, done: make(chan struct{})}
	p.cmd.Env = append(market.WithoutSettings(os.Environ()), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: user, Gid: user}}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.done); _ = p.cmd.Wait() }()
	return p
}

// kill ends the process as a power cut would, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// buffer keeps what a process prints.
type buffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// portAddress is where the sandbox's relay publishes a port.
func portAddress(public uint16) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(public)))
}

// listen takes an address away from the relay.
func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}
