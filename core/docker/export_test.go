package docker

import (
	"context"
	"time"
)

// SetStall shortens the time after which a download without a byte is given up.
func (e *Engine) SetStall(d time.Duration) { e.stall = d }

// KeepsContainers tells what the engine is known to do when it goes away.
func (e *Engine) KeepsContainers() bool { return e.keepsContainers() }

// HoldsToSize tells whether the engine's storage has been seen to hold containers to a size.
func (e *Engine) HoldsToSize(ctx context.Context) bool { return e.quota.holds(ctx) }

// Publish has ports published, as where containers' own addresses are out of reach.
func (e *Engine) Publish() { e.near = func(context.Context, string) bool { return false } }

// SetRetry shortens the time before the first retry of what a registry could not answer.
func (e *Engine) SetRetry(d time.Duration) { e.registries.tryWait = d }

// SetFree makes the engine's disk of 1 TiB have so many free bytes, its reserve of 10 % among them.
func (e *Engine) SetFree(free func() int64) {
	e.space = func(string) (space, error) { return space{free: free(), total: 1 << 40}, nil }
}

// TendImages removes what images need not stay.
func (e *Engine) TendImages(ctx context.Context) error { return e.tendImages(ctx) }

// Unhold lets go of images that were pulled and have no container.
func (e *Engine) Unhold() {
	e.shelf.mu.Lock()
	defer e.shelf.mu.Unlock()
	e.shelf.holds = nil
}
