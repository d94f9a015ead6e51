//go:build linux

package e2e

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/workload"
)

func TestRentAndStop(t *testing.T) {
	w := newWorld(t, options{})
	w.start()

	node, err := w.Backend.WaitNode(w.within())
	w.must(err)
	w.eventually("registered with the full survey", func() bool {
		node, _ = w.Backend.Node(node.ID)
		return node.Register.Hardware.Docker != nil && node.Register.Accepting
	})
	if system := node.Register.Hardware.System; system.CPUModel == nil || system.RAMTotalMB == nil || *system.RAMTotalMB == 0 {
		t.Errorf("registered without CPU or memory: %+v", system)
	}

	order := w.order("r-first")
	running := w.rent(order)
	if len(running.Ports) != 1 || !strings.HasPrefix(running.ImageDigest, "sha256:") || running.ContainerID == "" {
		t.Fatalf("running without port, digest or container: %+v", running)
	}
	got := w.answers(running.Ports[0].PublicAddress)
	if got.MemoryBytes != int64(order.RAMLimit) || got.CPUs != order.CPUCores || got.ShmBytes != int64(order.ShmSize) || got.PidsLimit == 0 {
		t.Errorf("the renter got %+v, ordered %+v", got, order)
	}
	if got.GPUsVisible != "void" || len(got.GPUs) != 0 {
		t.Errorf("a rental without a GPU sees %q %v", got.GPUsVisible, got.GPUs)
	}
	if !got.NoNewPrivs || got.Seccomp != "2" || slices.Contains(got.Capabilities, "NET_RAW") || slices.Contains(got.Capabilities, "SYS_ADMIN") {
		t.Errorf("the container is not hardened: %+v", got)
	}
	if !slices.Contains(got.Environment, "GREETING") {
		t.Errorf("the renter's environment lacks GREETING: %v", got.Environment)
	}

	w.eventually("the request for the page is in the logs", func() bool {
		logs, err := w.Backend.GetLogs(w.within(), w.node, protocol.GetLogs{RentalID: order.RentalID})
		return err == nil && strings.Contains(logs.Text, "/json")
	})

	// The same order again is answered the same and starts nothing.
	w.accept(order)
	if ids, err := shared.docker.containers(); err != nil || len(ids) != 1 {
		t.Errorf("containers after the same order twice: %v, %v", ids, err)
	}

	w.stop(order.RentalID)
	w.refuses(running.Ports[0].PublicAddress)
	w.eventually("the settled rental is gone from status", func() bool { return len(w.status().Rentals) == 0 })
	w.examined()
	w.nothingLeft()
	rental, _ := w.Backend.Rental(order.RentalID)
	var states []string
	for _, report := range rental.History {
		if state := report.Status.State; len(states) == 0 || states[len(states)-1] != state {
			states = append(states, state)
		}
	}
	want := []string{"accepted", "pulling", "creating", "starting", "tunnelling", "running", "stopping", "stopped"}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	w.recorded(order, running.ContainerID)
}

// recorded holds the audit record against the rental that was: all of it is there, but the renter's secrets.
func (w *world) recorded(order protocol.StartInstance, containerID string) {
	w.t.Helper()
	if out, code := w.cli("audit", "verify"); code != 0 {
		w.t.Errorf("audit verify exits %d: %s", code, out)
	}
	record, code := w.cli("audit", "show", "--json")
	for _, words := range []string{`"event":"start_instance"`, `"state":"running"`, `"state":"stopped"`, containerID, order.Image} {
		if code != 0 || !strings.Contains(record, words) {
			w.t.Errorf("the audit record lacks %s: %s", words, record)
		}
	}
	for name, value := range order.EnvVars {
		if strings.Contains(record, value) {
			w.t.Errorf("the audit record has the value of %s", name)
		}
	}
}

// examined asks doctor for what the agent knows: whether this engine is fit depends on the machine.
func (w *world) examined() {
	w.t.Helper()
	out, code := w.cli("doctor")
	status := w.status()
	if unfit := regexp.MustCompile(`(?m)^(below|unknown|bad) `).MatchString(out); unfit == (code == 0) {
		w.t.Errorf("doctor exits %d: %s", code, out)
	}
	for _, words := range []string{"ok       engine ", " runc ", " kernel ", "ok       backend ", "ok       relay "} {
		if !strings.Contains(out, words) {
			w.t.Errorf("doctor lacks %q: %s", words, out)
		}
	}
	if allowed := hasProblem(status, "takes rentals though its versions have known escapes"); allowed == (code == 0) {
		w.t.Errorf("doctor exits %d, and the problems are %+v", code, status.Problems)
	}
}

func TestHeartbeats(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.eventually("three heartbeats", func() bool {
		node, _ := w.Backend.Node(w.node)
		return len(node.Heartbeats) >= 3
	})
	node, _ := w.Backend.Node(w.node)
	for i := 1; i < 3; i++ {
		if pause := node.Heartbeats[i].Sub(node.Heartbeats[i-1]); pause < 4*time.Second || pause > 6*time.Second {
			t.Errorf("heartbeat %d came after %v, want 5 s", i, pause)
		}
	}
	if metrics := node.Heartbeat.Metrics; metrics.RAMUsageMB == nil || metrics.DiskUsageGB == nil || metrics.CPUUtilization == nil {
		t.Errorf("heartbeat lacks readings: %+v", metrics)
	}
}

func TestTwoRentalsAtOnce(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	one, two := w.order("r-one"), w.order("r-two")
	w.accept(one)
	w.accept(two)
	first, second := w.reach("r-one", "running"), w.reach("r-two", "running")
	w.answers(first.Ports[0].PublicAddress)
	w.answers(second.Ports[0].PublicAddress)
	w.stop("r-one")
	w.refuses(first.Ports[0].PublicAddress)
	w.answers(second.Ports[0].PublicAddress) // the other is untouched
	w.stop("r-two")
	w.nothingLeft()
}

const twoGPUs = `GPU-11111111-2222-3333-4444-555555555555|NVIDIA GeForce RTX 4090|24564|512|7|41|70|450|30|8.9|00000000:01:00.0|4|16
GPU-22222222-2222-3333-4444-555555555555|NVIDIA GeForce RTX 4090|24564|512|8|42|70|450|30|8.9|00000000:02:00.0|4|16
`

func TestGPURental(t *testing.T) {
	w := newWorld(t, options{gpus: twoGPUs})
	w.start()
	w.eventually("both GPUs are offered", func() bool {
		node, _ := w.Backend.Node(w.node)
		return len(node.Register.Offer.GPUIndices) == 2
	})
	order := w.order("r-gpu")
	order.GPUIndices = []int{1}
	running := w.rent(order)

	const asked = "GPU-22222222-2222-3333-4444-555555555555"
	calls, err := shared.engine.HookCalls()
	w.must(err)
	if len(calls) == 0 {
		t.Fatal("the NVIDIA hook was not called")
	}
	last := calls[len(calls)-1]
	if diff := cmp.Diff([]string{asked}, last.Devices); diff != "" || last.ContainerID != running.ContainerID {
		t.Errorf("hook of container %s got devices (-want +got):\n%s", last.ContainerID, diff)
	}
	got := w.answers(running.Ports[0].PublicAddress)
	if len(got.GPUs) != 1 || !strings.Contains(got.GPUs[0], asked) {
		t.Errorf("the renter sees %v, want %s alone", got.GPUs, asked)
	}

	// A rented GPU is not rented again, a free one is.
	again := w.order("r-gpu-again")
	again.GPUIndices = []int{1}
	result, err := w.Backend.StartInstance(w.within(), w.node, again)
	w.must(err)
	if result.OK || result.Error.Code != protocol.GPUUnavailable {
		t.Errorf("renting a rented GPU: %+v", result)
	}
	free := w.order("r-gpu-free")
	free.GPUIndices = []int{0}
	w.rent(free)
	w.stop("r-gpu-free")
	w.stop("r-gpu")
	w.nothingLeft()
}

func TestPullShowsProgress(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	img, err := workload.Pack(shared.guest)
	w.must(err)
	img, err = workload.Grow(img, uint64(time.Now().UnixNano()), 8<<20)
	w.must(err)
	ref, err := w.Registry.Push(w.ctx, "sandbox/large:latest", img)
	w.must(err)
	w.Registry.LimitRate(3 << 20)

	order := w.order("r-pull")
	order.Image = ref
	w.rent(order)
	rental, _ := w.Backend.Rental("r-pull")
	var seen []int64
	for _, report := range rental.History {
		if p := report.Status.Progress; p != nil && p.Phase == "pulling" && p.TotalBytes > 0 {
			seen = append(seen, p.CurrentBytes)
		}
	}
	if len(seen) < 3 || !slices.IsSorted(seen) || seen[len(seen)-1] <= seen[0] {
		t.Errorf("pull progress %v: want at least three growing readings", seen)
	}
	w.stop("r-pull")
	w.nothingLeft()
}

func TestSeedOnlyBackend(t *testing.T) {
	w := newWorld(t, options{seedOnly: true})
	w.start()
	w.eventually("the node accepts", func() bool {
		node, _ := w.Backend.Node(w.node)
		return node.Heartbeat != nil && node.Heartbeat.Accepting
	})
	order := w.order("r-seed")
	_, err := w.Backend.StartInstance(w.within(), w.node, order)
	w.must(err)
	var address string
	for _, public := range order.PortMapping {
		address = portAddress(public)
	}
	w.answers(address)
	_, err = w.Backend.StopInstance(w.within(), w.node, protocol.StopInstance{RentalID: order.RentalID})
	w.must(err)
	w.eventually("the rental is gone", func() bool {
		ids, err := shared.docker.containers()
		return err == nil && len(ids) == 0
	})
	_, err = w.Backend.DrainNode(w.within(), w.node, protocol.DrainNode{})
	w.must(err)
	w.eventually("the node no longer accepts", func() bool {
		node, _ := w.Backend.Node(w.node)
		return node.Heartbeat != nil && !node.Heartbeat.Accepting
	})
}

func TestExpiryNeedsNoBackend(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	order := w.order("r-brief")
	order.ExpiresAt = time.Now().Add(6 * time.Second)
	w.rent(order)
	w.Backend.Down()
	w.eventually("the expired rental's container is gone", func() bool {
		ids, err := shared.docker.containers()
		return err == nil && len(ids) == 0
	})
	w.must(w.Backend.Up(w.ctx))
	status := w.reach("r-brief", "stopped")
	if status.Error == nil || status.Error.Code != protocol.Expired {
		t.Errorf("final status %+v, want error code expired", status)
	}
}
