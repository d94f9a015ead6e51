package rental

import (
	"context"
	"time"
)

// censusHolds is how long what the engine holds is taken for known while rentals are taken up: no longer than that
// takes, since a container that has ended meanwhile would be started again.
const censusHolds = time.Second

// census asks an engine once what it holds for all rentals that are taken up together: a list for each
// would be as long as there are rentals.
type census struct {
	turn chan struct{} // capacity 1: held by who asks
	at   time.Time     // of the answer; who has the turn may look
	held []Holding
}

func newCensus() *census { return &census{turn: make(chan struct{}, 1)} }

// of is what the engine holds, as of a moment ago.
func (c *census) of(ctx context.Context, engine Engine) ([]Holding, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if !c.at.IsZero() && time.Since(c.at) < censusHolds {
		return c.held, nil
	}
	held, err := engine.Holdings(ctx)
	if err != nil {
		return nil, err
	}
	c.at, c.held = time.Now(), held
	return held, nil
}
