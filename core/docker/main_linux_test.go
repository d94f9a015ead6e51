package docker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/sandbox/engine"
	"github.com/distributedcompute/host-agent/sandbox/registry"
	"github.com/distributedcompute/host-agent/sandbox/workload"
)

// What all tests of this package share: a real engine in a network of its own, and a registry with
// the sandbox's image. Tests run one after the other.
var (
	daemon *engine.Engine
	store  *registry.Registry
	guest  v1.Image // the workload
	image  string   // its reference
)

const ownerKey = "0123456789abcdef0123456789abcdef"

func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		os.Exit(m.Run()) // what is fuzzed is pure, in many processes at once
	}
	os.Exit(engine.Isolated(func() int {
		// The first look-up of a name makes what later ones share, and must not be in a synctest bubble.
		_, _ = net.LookupHost("localhost")
		code, err := withEngine(m.Run)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}))
}

func withEngine(run func() int) (code int, err error) {
	ctx := context.Background()
	if daemon, err = engine.Start(ctx, engine.Options{FakeNVIDIA: true}); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, daemon.Stop()) }()
	if store, err = registry.Start(ctx); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if guest, err = workload.Image(ctx); err != nil {
		return 0, err
	}
	if image, err = store.Push(ctx, "workload:1", guest); err != nil {
		return 0, err
	}
	return run(), nil
}

func newEngine(t testing.TB) *docker.Engine {
	t.Helper()
	return engineWith(t, docker.Options{Host: daemon.Host(), OwnerKey: []byte(ownerKey)})
}

func engineWith(t testing.TB, options docker.Options) *docker.Engine {
	t.Helper()
	options.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	options.Images.Registries.Loopback = true
	if options.Images.Reserve == 0 {
		options.Images.Reserve = 64 << 20 // the disk of a test machine may be small
	}
	e, err := docker.New(options)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// watch runs e's Run until the test ends, and returns a channel that ticks at every change of Info.
func watch(t testing.TB, e *docker.Engine) <-chan struct{} {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	changed := make(chan struct{}, 1)
	var running sync.WaitGroup
	running.Go(func() {
		err := e.Run(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { stop(); running.Wait() })
	return changed
}

// until waits for a change after which Info is as wanted.
func until(t testing.TB, e *docker.Engine, changed <-chan struct{}, want func(rental.EngineInfo) bool) rental.EngineInfo {
	t.Helper()
	late := time.After(time.Minute)
	for {
		if info := e.Info(); want(info) {
			return info
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("the engine's info stayed %+v", e.Info())
		}
	}
}

// spec is a small rental of the workload.
func spec(id rental.ID) rental.Spec {
	return rental.Spec{
		ID: id, Image: image, MemoryBytes: 256 << 20, CPUs: 1, PidsLimit: 256,
		Ports: []rental.Port{{Container: 8080, Protocol: rental.TCP, Public: 18080}, {Container: 9090, Protocol: rental.UDP, Public: 19090}},
	}
}

// rent has a rental's container running. It is removed when the test ends.
func rent(t testing.TB, e *docker.Engine, s rental.Spec) rental.Container {
	t.Helper()
	id := create(t, e, s)
	started, err := e.Start(t.Context(), id)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	return started
}

func create(t testing.TB, e *docker.Engine, s rental.Spec) string {
	t.Helper()
	id, err := e.Create(t.Context(), s, pull(t, e, s.Image))
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	t.Cleanup(func() { remove(t, e, s.ID) })
	return id
}

func remove(t testing.TB, e *docker.Engine, id rental.ID) {
	t.Helper()
	if err := e.Remove(context.Background(), id, ""); err != nil {
		t.Errorf("Remove: %v", err)
	}
}

func pull(t testing.TB, e *docker.Engine, ref string) rental.Image {
	t.Helper()
	pulled, err := e.Pull(t.Context(), ref, nil, func(rental.Progress) {})
	if err != nil {
		t.Fatalf("Pull: %v", err)
	}
	return pulled
}

// cli runs the docker command against the engine, as the host's owner might.
func cli(t testing.TB, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("docker", append([]string{"-H", daemon.Host()}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}

// page is the part of the workload's report that tests look at.
type page struct {
	GPUsVisible  string   `json:"gpus_visible"`
	GPUs         []string `json:"gpus"`
	CPUs         float64  `json:"cpus"`
	MemoryBytes  int64    `json:"memory_bytes"`
	PidsLimit    int64    `json:"pids_limit"`
	ShmBytes     int64    `json:"shm_bytes"`
	Capabilities []string `json:"capabilities"`
	NoNewPrivs   bool     `json:"no_new_privs"`
	Seccomp      string   `json:"seccomp"`
	Environment  []string `json:"environment"`
}

// visit asks the workload of a container; it retries while the program is starting.
func visit(t testing.TB, c rental.Container, path string) []byte {
	t.Helper()
	for late := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		response, err := http.Get("http://" + c.Routes[0].Target.String() + path)
		if err == nil {
			defer response.Body.Close()
			var body bytes.Buffer
			if _, err := body.ReadFrom(response.Body); err != nil {
				t.Fatalf("reading %s: %v", path, err)
			}
			return body.Bytes()
		}
		if time.Now().After(late) {
			t.Fatalf("asking the workload: %v", err)
		}
	}
}

func report(t testing.TB, c rental.Container) page {
	t.Helper()
	var got page
	if err := json.Unmarshal(visit(t, c, "/json"), &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// wantFailure checks an error's code.
func wantFailure(t testing.TB, err error, code rental.Code) {
	t.Helper()
	failure, ok := errors.AsType[*rental.Failure](err)
	if !ok || failure.Code != code {
		t.Errorf("error %v (%T), want a failure %s", err, err, code)
		return
	}
	t.Logf("%s: %s", failure.Code, failure.Message)
	if strings.Contains(failure.Message, "/run/") || strings.Contains(failure.Message, "/var/") {
		t.Errorf("the message names a path of the host: %s", failure.Message)
	}
}

// request asks the workload at an address for something that it does not survive, so there is no answer to look at.
func request(address, path string) {
	response, err := http.Get("http://" + address + path)
	if err == nil {
		response.Body.Close()
	}
}
