package rental_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
)

// counted is an engine whose lists are counted.
type counted struct {
	rental.Engine
	lists *atomic.Int32
}

func (c counted) Holdings(ctx context.Context) ([]rental.Holding, error) {
	c.lists.Add(1)
	time.Sleep(time.Second)
	return c.Engine.Holdings(ctx)
}

func TestRentalsTakenUpTogetherShareOneList(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		ids := []rental.ID{"a", "b", "c", "d"}
		for _, id := range ids {
			h.accept(spec(id))
		}
		synctest.Wait()
		for _, id := range ids {
			h.expect(id, rental.Running, "")
		}
		h.leave()
		var lists atomic.Int32
		book, err := rental.Open(rental.Options{Dir: h.dir, Engine: counted{h.engine, &lists}, Relay: h.relay, Log: quiet(t)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- book.Run(ctx, func(rental.Status) {}) }()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for _, id := range ids {
			if s, _ := book.Lookup(id); s.State != rental.Running {
				t.Errorf("rental %s is %s", id, s.State)
			}
		}
		if n := lists.Load(); n != 1 {
			t.Errorf("the engine was asked %d times for %d rentals", n, len(ids))
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Nobody is billed for the time in which nobody can say that the container ran.
func TestEndThatNobodySawIsNotBilledBeyondTheLastSight(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("a"))
		synctest.Wait()
		h.expect("a", rental.Running, "")
		time.Sleep(time.Hour)
		left := time.Now()
		h.leave()
		if err := h.engine.Remove(t.Context(), "a", h.status("a").ContainerID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8 * time.Hour)
		h.boot()
		time.Sleep(time.Minute)
		s := h.expect("a", rental.Failed, rental.CodeInterrupted)
		if late := s.EndedAt.Sub(left); late > 0 || late < -time.Second {
			t.Errorf("ended at %v, %v after the agent last saw it", s.EndedAt, late)
		}
	})
}
