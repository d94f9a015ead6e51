package rental_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/rental/rentaltest"
)

// counter lends GPUs and notes what there was on the engine at each step.
type counter struct {
	engine  *rentaltest.Engine
	refuses error
	slow    time.Duration // taking GPUs back takes so long

	mu    sync.Mutex
	steps []string
	spoil chan error // what a watch is to end with
}

func (c *counter) step(ctx context.Context, name string, id rental.ID) {
	held, _ := c.engine.Holdings(ctx)
	for _, h := range held {
		if h.ID == id {
			name += " with a container"
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps = append(c.steps, name)
}

func (c *counter) Lend(ctx context.Context, id rental.ID, _ []rental.GPU) error {
	c.step(ctx, "lend", id)
	return c.refuses
}

func (c *counter) Watch(ctx context.Context, id rental.ID, _ []rental.GPU, container string) error {
	c.step(ctx, "watch", id)
	select {
	case err := <-c.spoil:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *counter) Return(ctx context.Context, id rental.ID, _ []rental.GPU) error {
	c.step(ctx, "return", id)
	select {
	case <-time.After(c.slow):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *counter) expect(t *testing.T, want ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if diff := cmp.Diff(want, c.steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

func withGPU(id rental.ID) rental.Spec {
	s := spec(id)
	s.GPUs = []rental.GPU{{Index: 0, UUID: "GPU-a"}}
	return s
}

// atCounter runs a test on a host that lends GPUs.
func atCounter(t *testing.T, test func(t *testing.T, h *host, c *counter)) {
	t.Helper()
	inBubble(t, func(t *testing.T, h *host) {
		h.leave()
		c := &counter{engine: h.engine, spoil: make(chan error, 1)}
		h.opts.Devices = c
		h.boot()
		test(t, h, c)
	})
}

func TestGPUsAreLentAndReturned(t *testing.T) {
	atCounter(t, func(t *testing.T, h *host, c *counter) {
		c.slow = 10 * time.Second
		h.accept(withGPU("r-1"))
		h.expect("r-1", rental.Running, "")
		c.expect(t, "lend", "watch with a container")
		h.end("r-1", nil, time.Second)
		time.Sleep(5 * time.Second)
		h.expect("r-1", rental.Stopping, "") // it is not over before they are back
		c.expect(t, "lend", "watch with a container", "return")
		time.Sleep(6 * time.Second)
		s := h.expect("r-1", rental.Stopped, "")
		if took := s.EndedAt.Sub(s.StartedAt); took > 2*time.Second {
			t.Errorf("the rental is told to have run for %v: the return is not its time", took)
		}
	})
}

func TestRefusedGPUs(t *testing.T) {
	atCounter(t, func(t *testing.T, h *host, c *counter) {
		c.refuses = rental.Failf(rental.CodeGPUUnavailable, "GPU 0 is in use.")
		h.accept(withGPU("r-1"))
		h.expect("r-1", rental.Failed, rental.CodeGPUUnavailable)
		c.expect(t, "lend")
		h.expectNothing("r-1")
	})
}

func TestNoGPUsNothingLent(t *testing.T) {
	atCounter(t, func(t *testing.T, h *host, c *counter) {
		h.accept(spec("r-1"))
		h.expect("r-1", rental.Running, "")
		h.end("r-1", nil, 0)
		h.expect("r-1", rental.Stopped, "")
		c.expect(t)
	})
}

func TestSpoiltGPUsEndTheRental(t *testing.T) {
	atCounter(t, func(t *testing.T, h *host, c *counter) {
		h.accept(withGPU("r-1"))
		h.expect("r-1", rental.Running, "")
		c.spoil <- rental.Failf(rental.CodeIsolation, "A program of the rental used another GPU.")
		h.expect("r-1", rental.Failed, rental.CodeIsolation)
		c.expect(t, "lend", "watch with a container", "return")
		h.expectNothing("r-1")
	})
}

// A container that could not be made has had its GPUs lent.
func TestGPUsOfAFailedRentalAreReturned(t *testing.T) {
	atCounter(t, func(t *testing.T, h *host, c *counter) {
		h.engine.Fail("Create", rental.Failf(rental.CodeContainerFailed, "The container cannot run."))
		h.accept(withGPU("r-1"))
		h.expect("r-1", rental.Failed, rental.CodeContainerFailed)
		c.expect(t, "lend", "return")
	})
}

// The next agent watches what it has adopted, and finishes a return that the last one began.
func TestGPUsOverAgents(t *testing.T) {
	atCounter(t, func(t *testing.T, h *host, c *counter) {
		h.accept(withGPU("r-1"))
		h.expect("r-1", rental.Running, "")
		h.leave()
		h.boot()
		h.expect("r-1", rental.Running, "")
		c.expect(t, "lend", "watch with a container", "watch with a container")
		c.slow = time.Minute
		h.end("r-1", nil, 0)
		h.expect("r-1", rental.Stopping, "")
		h.leave()
		c.slow = 0
		h.boot()
		h.expect("r-1", rental.Stopped, "")
		c.expect(t, "lend", "watch with a container", "watch with a container", "return", "return")
	})
}
