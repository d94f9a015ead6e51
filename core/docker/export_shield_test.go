package docker

import (
	"context"

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

// LookAtShield lets Run look now.
func (e *Engine) LookAtShield() { e.guard.ask() }
