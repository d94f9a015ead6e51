package docker

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/distributedcompute/host-agent/core/shield"
)

// HangHands lets every call of the packet filter hang, which is waited for that long, until the function that it
// returns is called.
func (e *Engine) HangHands(within time.Duration) func() {
	g := e.guard
	g.mu.Lock()
	g.handsWithin = within
	g.mu.Unlock()
	g.own.busy <- struct{}{} // as one call does that hangs
	return func() { <-g.own.busy }
}

// ShieldIsSettled reports whether the shield was seen to stand since it was put up last.
func (e *Engine) ShieldIsSettled() bool {
	e.guard.mu.Lock()
	defer e.guard.mu.Unlock()
	return !e.guard.failed && !e.guard.seen.verified.IsZero()
}

// CountLooks counts looks in full from now on.
func (e *Engine) CountLooks() *atomic.Int64 {
	counting := countingHands{e.guard.own, new(atomic.Int64)}
	e.guard.mu.Lock()
	defer e.guard.mu.Unlock()
	e.guard.hands, e.guard.how = counting, "direct"
	return counting.looks
}

type countingHands struct {
	ownHands
	looks *atomic.Int64
}

func (c countingHands) observe(ctx context.Context) (shield.Standing, error) {
	c.looks.Add(1)
	return c.ownHands.observe(ctx)
}
