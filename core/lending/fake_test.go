package lending

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// There is no GPU in the machines that run these tests. Here the machine is a made-up one; in
// nvml_linux_test.go a stand-in for NVIDIA's library is called as the real one would be.

// box is a machine whose GPUs the test plays.
type box struct {
	mu       sync.Mutex
	states   map[string]hardware.GPUState
	homes    map[int]string // container of a process, "" for the host's own; a process that is not here is gone
	hidden   map[int]bool   // processes whose container cannot be told
	xids     []hardware.Xid
	boot     string
	hangs    bool
	locked   bool // settings cannot be set
	restored int
	looks    int
}

const (
	gib = 1 << 30
	mib = 1 << 20
)

func newBox(uuids ...string) *box {
	b := &box{states: map[string]hardware.GPUState{}, homes: map[int]string{}, hidden: map[int]bool{}, boot: "boot-1"}
	for i, uuid := range uuids {
		b.states[uuid] = hardware.GPUState{
			UUID: uuid, MemoryUsed: new(int64(300 * mib)), Memory: new(int64(24 * gib)), Bus: fmt.Sprintf("00000000:%02d:00.0", i+1),
			Compute: []hardware.Process{}, Graphics: []hardware.Process{}, ECCErrors: new(uint64(0)),
			Settings: hardware.Settings{PowerLimit: new(uint32(450_000)), ComputeMode: new(uint32(0))},
		}
	}
	return b
}

func (b *box) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *box) change(uuid string, f func(*hardware.GPUState)) {
	b.set(func() {
		s := b.states[uuid]
		f(&s)
		b.states[uuid] = s
	})
}

// run puts a process on a GPU, with so much of its memory.
func (b *box) run(uuid string, pid int, home string, mebibytes int64) {
	b.set(func() { b.homes[pid] = home })
	b.change(uuid, func(s *hardware.GPUState) {
		s.Compute = append(slices.Clone(s.Compute), hardware.Process{PID: pid, Memory: new(mebibytes * mib)})
		s.MemoryUsed = new(*s.MemoryUsed + mebibytes*mib)
	})
}

// kill ends all of a GPU's processes; what they held stays in use where leak says so.
func (b *box) kill(uuid string, leak bool) {
	b.change(uuid, func(s *hardware.GPUState) {
		for _, p := range s.Compute {
			delete(b.homes, p.PID)
			if !leak {
				s.MemoryUsed = new(*s.MemoryUsed - *p.Memory)
			}
		}
		s.Compute = []hardware.Process{}
	})
}

var errHangs = errors.New("the driver does not answer")

// answer waits for a driver that hangs as long as the real question would.
func (b *box) answer(ctx context.Context) error {
	b.mu.Lock()
	hangs := b.hangs
	b.looks++
	b.mu.Unlock()
	if !hangs {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10e9)
	defer cancel()
	<-ctx.Done()
	return errHangs
}

func (b *box) Inspect(ctx context.Context, gpus []hardware.GPU) ([]hardware.GPUState, error) {
	if err := b.answer(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	states := make([]hardware.GPUState, len(gpus))
	for i, gpu := range gpus {
		state, ok := b.states[gpu.UUID]
		if !ok {
			state = hardware.GPUState{UUID: gpu.UUID, Lost: true}
		}
		states[i] = state
	}
	return states, nil
}

func (b *box) Tenants(ctx context.Context, _ []hardware.GPU) ([]hardware.Tenancy, error) {
	if err := b.answer(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []hardware.Tenancy
	for _, uuid := range slices.Sorted(maps.Keys(b.states)) {
		all = append(all, hardware.Tenancy{UUID: uuid, Compute: b.states[uuid].Compute, Graphics: b.states[uuid].Graphics})
	}
	return all, nil
}

func (b *box) Restore(_ context.Context, gpu hardware.GPU, wanted hardware.Settings) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.locked {
		return errors.New("no permission")
	}
	b.restored++
	s := b.states[gpu.UUID]
	s.Settings = wanted
	b.states[gpu.UUID] = s
	return nil
}

func (b *box) RunsIn(pid int, container string) (yes, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	home, there := b.homes[pid]
	return home == container, there && !b.hidden[pid]
}

func (b *box) Alive(pid int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, there := b.homes[pid]
	return there
}

func (b *box) Xids(after int64) ([]hardware.Xid, int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.xids[min(after+1, int64(len(b.xids))):]), int64(len(b.xids)) - 1, nil
}

func (b *box) BootID() string { return b.boot }

// The GPUs of the tests and a rental's container.
var (
	gpuA = rental.GPU{Index: 0, UUID: "GPU-a"}
	gpuB = rental.GPU{Index: 1, UUID: "GPU-b"}
)

const container = "0123456789abcdef"

func open(t *testing.T, dir string, b *box) *Desk {
	t.Helper()
	d, err := Open(Options{Dir: dir, Machine: b})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func code(err error) rental.Code {
	if failure, ok := errors.AsType[*rental.Failure](err); ok {
		return failure.Code
	}
	return ""
}
