package docker

import (
	"context"
	"time"

	"github.com/distributedcompute/host-agent/core/shield"
)

// LoseHands lets every attempt to reach the packet filter fail with err from now on; nil gives the hands back.
func (e *Engine) LoseHands(err error) {
	e.guard.mu.Lock()
	defer e.guard.mu.Unlock()
	if e.guard.hands = nil; err != nil {
		e.guard.hands = lostHands{err}
	}
}

type lostHands struct{ err error }

func (h lostHands) raise(context.Context, shield.Policy) (shield.Standing, error) {
	return shield.Standing{}, h.err
}

func (h lostHands) observe(context.Context) (shield.Standing, error) { return shield.Standing{}, h.err }
func (h lostHands) lower(context.Context) error                      { return h.err }

// Blind lets every look at the packet filter end with err, as one that does not tell whether the shield stands.
func (e *Engine) Blind(err error) { e.LoseHands(&unseen{err}) }

// StoodBefore sets back when the shield was last seen to stand.
func (e *Engine) StoodBefore(ago time.Duration) {
	e.guard.mu.Lock()
	defer e.guard.mu.Unlock()
	e.guard.stood = time.Now().Add(-ago)
}

// Borrow makes the engine use hands in a container, whatever this process may do itself.
func (e *Engine) Borrow(ctx context.Context) error {
	known, err := e.knownFacts(ctx)
	if err != nil {
		return err
	}
	through, err := e.borrowHands(ctx, e.guard.Program, known)
	e.guard.mu.Lock()
	defer e.guard.mu.Unlock()
	e.guard.hands, e.guard.how = through, "container"
	return err
}

// InsistOnShield is what Run does when it looks.
func (e *Engine) InsistOnShield(ctx context.Context) { e.insistOnShield(ctx) }

// LookAtShield lets Run look now.
func (e *Engine) LookAtShield() { e.guard.ask() }
