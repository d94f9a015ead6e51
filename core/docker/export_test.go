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
