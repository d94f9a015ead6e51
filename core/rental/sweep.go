package rental

import (
	"context"
	"time"
)

// sweep removes what carries this agent's label and belongs to no living rental: left by a call
// that succeeded after it had been given up, or by a record that was lost. An engine that does not
// answer is not asked twice; the next round comes.
func (b *Book) sweep(ctx context.Context) {
	holdings, err := b.opts.Engine.Holdings(ctx)
	if err != nil {
		b.opts.Log.Debug("sweeping: listing what the engine holds", "error", err)
		return
	}
	for _, h := range holdings {
		if l, ok := b.find(h.ID); ok && (!l.final() || !l.owns(h)) {
			continue
		}
		if time.Since(h.CreatedAt) < b.opts.SweepAfter {
			continue
		}
		b.opts.Log.Warn("removing a container that belongs to no rental", "rental", h.ID, "container", h.ContainerID, "created", h.CreatedAt)
		if err := b.opts.Engine.Remove(ctx, h.ID, h.ContainerID); err != nil {
			b.opts.Log.Error("removing a container that belongs to no rental", "rental", h.ID, "error", err)
		}
	}
}
