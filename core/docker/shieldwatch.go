package docker

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/distributedcompute/host-agent/core/shield"
)

const (
	// glanceEvery is how soon a shield that is gone is noticed while rentals run.
	glanceEvery = time.Second
	// shieldEvery is how often the shield's counters are read, and how soon it is noticed that it is gone where
	// nothing tells of changes: it leaves time to end rentals within 30 s of when it was lost.
	shieldEvery = 20 * time.Second
	// shieldAnyway is how often the shield is looked at in full though nothing tells of a change.
	shieldAnyway = 5 * time.Minute
	// enoughQuarrels in a row mean that somebody else keeps another shield in the place of ours.
	enoughQuarrels = 3
)

// watcher are hands that tell cheaply that nothing was changed.
type watcher interface {
	generation(ctx context.Context) (uint32, error)
	glance(ctx context.Context) (shield.Glimpse, error)
	blocked(ctx context.Context) (map[netip.Addr]uint64, error)
}

func (o ownHands) generation(ctx context.Context) (uint32, error) {
	return unhung(ctx, o, shield.Direct{}.Generation)
}

func (o ownHands) glance(ctx context.Context) (shield.Glimpse, error) {
	return unhung(ctx, o, func(ctx context.Context) (shield.Glimpse, error) { return shield.Glance(ctx, shield.Direct{}) })
}

func (o ownHands) blocked(ctx context.Context) (map[netip.Addr]uint64, error) {
	return unhung(ctx, o, shield.Direct{}.Blocked)
}

// unhung does work, and waits for it until ctx ends: a call that hangs in the kernel cannot be called off. As long as
// it hangs no other is begun.
func unhung[T any](ctx context.Context, hands ownHands, work func(context.Context) (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	var none T
	select {
	case hands.busy <- struct{}{}:
	case <-ctx.Done():
		return none, fmt.Errorf("an earlier call of the packet filter hangs: %w", ctx.Err())
	}
	done := make(chan outcome, 1)
	go func() {
		defer func() { <-hands.busy }()
		value, err := work(ctx)
		done <- outcome{value, err}
	}()
	select {
	case got := <-done:
		return got.value, got.err
	case <-ctx.Done():
		return none, fmt.Errorf("the packet filter does not answer: %w", ctx.Err())
	}
}

// lookedAt is what the last looks at the shield have shown.
type lookedAt struct {
	at         time.Time // of the last, with whatever end
	counted    time.Time // when the counters were read
	verified   time.Time // when it was last seen in full as it was put up; zero: not since it was put up
	generation uint32    // from before it was verified
}

// still reports whether the hands tell that nothing was changed since the shield was looked at not long ago.
func (g *guard) still(ctx context.Context) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	w, ok := g.hands.(watcher)
	if !ok || g.failed || g.seen.verified.IsZero() || time.Since(g.seen.at) >= shieldEvery-glanceEvery {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, g.handsWithin/2)
	defer cancel()
	now, err := w.generation(ctx)
	return err == nil && now == g.seen.generation
}

// untouched reports whether no look in full is needed, as nothing was changed since the last, and reads the counters
// if need be. g.mu is held.
func (g *guard) untouched(ctx context.Context) bool {
	w, ok := g.hands.(watcher)
	if !ok || g.failed || g.seen.verified.IsZero() || time.Since(g.seen.verified) >= shieldAnyway {
		return false
	}
	now, err := w.glance(ctx)
	if err != nil || now.Generation != g.seen.generation || !slices.Equal(now.Networks, g.up.Networks) {
		return false
	}
	if time.Since(g.seen.counted) < shieldEvery-glanceEvery {
		return true
	}
	counters, err := w.blocked(ctx)
	if err != nil {
		return false
	}
	g.turned.add(counters)
	g.seen.counted = time.Now()
	return true
}

// pace is how long to wait before the shield is looked at again.
func (g *guard) pace() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, watched := g.hands.(watcher)
	rented := len(g.turned.owners) > 0
	switch {
	case rented && watched && g.rival.quarrels < enoughQuarrels:
		return glanceEvery
	case rented || watched || g.failed || g.hands == nil:
		return shieldEvery
	}
	return shieldAnyway // a container each time, which nobody needs: every start looks, too
}

// rivalry tells somebody who changes our rules now and then from somebody who keeps a shield of his own in the place of
// ours, as another agent does that has other settings. Two of these would put up theirs in turns without an end.
type rivalry struct {
	raised   time.Time // when ours was put up last
	quarrels int       // times in a row that another stood soon after
}

// found takes in what stands in the place of ours, and reports whether it is clear only now that there is a rival.
func (r *rivalry) found(ours, there shield.Standing, now time.Time) bool {
	another := there.Mark != "" && ours.Mark != "" && there.Mark != ours.Mark
	if !another || now.Sub(r.raised) > 2*shieldEvery {
		r.quarrels = 0
	}
	if !another {
		return false
	}
	r.quarrels++
	return r.quarrels == enoughQuarrels
}

// calm takes in that ours stands.
func (r *rivalry) calm(now time.Time) {
	if now.Sub(r.raised) > 2*shieldEvery {
		r.quarrels = 0
	}
}
