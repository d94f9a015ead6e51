package rentaltest

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
)

// Engine is a container engine in memory. Like a real one it outlives the agents that use it.
type Engine struct {
	mu       sync.Mutex
	changed  chan struct{} // closed and made anew at every change
	images   map[string]rental.Image
	boxes    map[rental.ID]*box
	away     bool
	made     int
	steps    []rental.Progress
	flash    *rental.Exit
	failures map[string]error
	holds    map[string]chan struct{}
	pulls    int
}

// box is a container with its network.
type box struct {
	id      string
	spec    rental.Spec
	running bool
	starts  []time.Time
	exit    rental.Exit
	created time.Time
	grace   time.Duration // of the last Stop
}

// NewEngine makes an engine that can pull the images given.
func NewEngine(images ...string) *Engine {
	e := &Engine{
		changed:  make(chan struct{}),
		images:   map[string]rental.Image{},
		boxes:    map[rental.ID]*box{},
		failures: map[string]error{},
		holds:    map[string]chan struct{}{},
	}
	for _, ref := range images {
		e.images[ref] = rental.Image{ID: "sha256:id-" + ref, Digest: "sha256:digest-" + ref}
	}
	return e
}

// Fail makes every call of the method named return err, until err is nil.
func (e *Engine) Fail(method string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failures[method] = err; err == nil {
		delete(e.failures, method)
	}
}

// Hold makes every call of the method named wait before it does anything, until release is called.
func (e *Engine) Hold(method string) (release func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	gate := make(chan struct{})
	e.holds[method] = gate
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.holds, method)
		close(gate)
	}
}

// Report sets the progress that a pull tells.
func (e *Engine) Report(steps ...rental.Progress) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.steps = steps
}

// Flash makes programs end in this way before Start has returned.
func (e *Engine) Flash(exit rental.Exit) { e.change(func() { e.flash = &exit }) }

// GoAway makes the engine unreachable, and ComeBack reachable. Containers run on.
func (e *Engine) GoAway() { e.change(func() { e.away = true }) }

// ComeBack undoes GoAway.
func (e *Engine) ComeBack() { e.change(func() { e.away = false }) }

// Launch starts a rental's container, as a call to Start does whose caller has not waited for it.
func (e *Engine) Launch(id rental.ID) {
	e.change(func() { _, _ = e.start(e.boxes[id].id) })
}

// Exit ends a rental's container.
func (e *Engine) Exit(id rental.ID, exit rental.Exit) {
	e.change(func() { e.boxes[id].end(exit) })
}

// Restart ends all containers as the engine's shutdown does.
func (e *Engine) Restart() {
	e.change(func() {
		for _, b := range e.boxes {
			b.end(rental.Exit{Code: 143, At: time.Now(), EngineStopped: true})
		}
	})
}

// Lose removes a container as a person with a command line would.
func (e *Engine) Lose(id rental.ID) { e.change(func() { delete(e.boxes, id) }) }

// Plant makes a container that no rental accounts for.
func (e *Engine) Plant(id rental.ID, created time.Time) {
	e.change(func() {
		e.boxes[id] = &box{id: "planted-" + string(id), running: true, starts: []time.Time{created}, created: created}
	})
}

// Starts tells how often a rental's container has been started; 0 when there is none.
func (e *Engine) Starts(id rental.ID) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if b, ok := e.boxes[id]; ok {
		return len(b.starts)
	}
	return 0
}

// Pulls tells how many pulls have been asked for.
func (e *Engine) Pulls() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pulls
}

// Grace tells how long the last Stop of a rental's container was to wait.
func (e *Engine) Grace(id rental.ID) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.boxes[id].grace
}

func (e *Engine) change(do func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	do()
	close(e.changed)
	e.changed = make(chan struct{})
}

func (b *box) end(exit rental.Exit) {
	if b.running {
		b.running, b.exit = false, exit
		b.exit.StartedAt = b.starts[len(b.starts)-1]
	}
}

// enter is how every call but Wait begins.
func (e *Engine) enter(ctx context.Context, method string) error {
	e.mu.Lock()
	gate := e.holds[method]
	e.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.away {
		return rental.Failf(rental.CodeDockerUnavailable, "The container engine does not answer.")
	}
	return e.failures[method]
}

// Pull implements rental.Engine.
func (e *Engine) Pull(ctx context.Context, image string, _ *rental.RegistryAuth, progress func(rental.Progress)) (rental.Image, error) {
	e.mu.Lock()
	e.pulls++
	steps := e.steps
	e.mu.Unlock()
	for _, step := range steps {
		progress(step)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return rental.Image{}, ctx.Err()
		}
	}
	if err := e.enter(ctx, "Pull"); err != nil {
		return rental.Image{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	found, ok := e.images[image]
	if !ok {
		return rental.Image{}, rental.Failf(rental.CodeImageNotFound, "There is no image %s.", image)
	}
	return found, nil
}

// Create implements rental.Engine.
func (e *Engine) Create(ctx context.Context, spec rental.Spec, image rental.Image) (string, error) {
	if err := e.enter(ctx, "Create"); err != nil {
		return "", err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if b, ok := e.boxes[spec.ID]; ok {
		return b.id, nil
	}
	if e.images[spec.Image] != image {
		return "", rental.Failf(rental.CodeImageNotFound, "Image %s has not been pulled.", image.ID)
	}
	e.made++
	b := &box{id: fmt.Sprintf("container-%d-%s", e.made, spec.ID), spec: spec, created: time.Now()}
	e.boxes[spec.ID] = b
	return b.id, nil
}

// Start implements rental.Engine.
func (e *Engine) Start(ctx context.Context, containerID string) (rental.Container, error) {
	if err := e.enter(ctx, "Start"); err != nil {
		return rental.Container{}, err
	}
	var c rental.Container
	var err error
	e.change(func() { c, err = e.start(containerID) })
	return c, err
}

func (e *Engine) start(containerID string) (rental.Container, error) {
	b := e.box(containerID)
	if b == nil {
		return rental.Container{}, rental.Failf(rental.CodeNotFound, "There is no container %s.", containerID)
	}
	if !b.running {
		b.running = true
		b.starts = append(b.starts, time.Now())
	}
	c := rental.Container{ID: b.id, StartedAt: b.starts[len(b.starts)-1]}
	if e.flash != nil {
		b.end(*e.flash)
		return c, nil
	}
	for i, port := range b.spec.Ports {
		host := uint16(30000 + 100*len(b.starts) + i) // another one at every start, as engines do
		c.Routes = append(c.Routes, rental.Route{Port: port, Target: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), host)})
	}
	return c, nil
}

// Wait implements rental.Engine. A call that begins after the end cannot tell whose doing that was.
func (e *Engine) Wait(ctx context.Context, containerID string) (rental.Exit, error) {
	witnessed := false
	for {
		e.mu.Lock()
		b, away, changed := e.box(containerID), e.away, e.changed
		var exit rental.Exit
		running := b != nil && b.running
		if b != nil {
			exit = b.exit
		}
		e.mu.Unlock()
		switch {
		case away || running:
			witnessed = true
		case b == nil:
			return rental.Exit{}, rental.Failf(rental.CodeNotFound, "There is no container %s.", containerID)
		default:
			exit.EngineStopped = exit.EngineStopped && witnessed
			return exit, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return rental.Exit{}, ctx.Err()
		}
	}
}

// Stop implements rental.Engine. Its programs end at once when they are asked to, with code 143.
func (e *Engine) Stop(ctx context.Context, containerID string, grace time.Duration) error {
	e.mu.Lock()
	if b := e.box(containerID); b != nil {
		b.grace = grace
	}
	e.mu.Unlock()
	if err := e.enter(ctx, "Stop"); err != nil {
		return err
	}
	e.change(func() {
		if b := e.box(containerID); b != nil {
			b.end(rental.Exit{Code: 143, At: time.Now()})
		}
	})
	return nil
}

// Remove implements rental.Engine.
func (e *Engine) Remove(ctx context.Context, id rental.ID, containerID string) error {
	if err := e.enter(ctx, "Remove"); err != nil {
		return err
	}
	e.change(func() {
		if b := e.boxes[id]; b != nil && (containerID == "" || b.id == containerID) {
			delete(e.boxes, id)
		}
	})
	return nil
}

// Holdings implements rental.Engine.
func (e *Engine) Holdings(ctx context.Context) ([]rental.Holding, error) {
	if err := e.enter(ctx, "Holdings"); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []rental.Holding
	for id, b := range e.boxes {
		all = append(all, rental.Holding{ID: id, ContainerID: b.id, Running: b.running, Ran: len(b.starts) > 0, CreatedAt: b.created})
	}
	slices.SortFunc(all, func(a, b rental.Holding) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

func (e *Engine) box(containerID string) *box {
	for _, b := range e.boxes {
		if b.id == containerID {
			return b
		}
	}
	return nil
}
