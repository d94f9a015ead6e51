package rental

import (
	"context"
	"errors"
	"sync"
	"time"
)

// pause is a wait that doubles each time, up to the longest one.
type pause struct{ next time.Duration }

const (
	shortestPause = 100 * time.Millisecond
	longestPause  = 5 * time.Second
)

func newPause() *pause { return &pause{shortestPause} }

// wait returns the cause of ctx when that ends first.
func (p *pause) wait(ctx context.Context) error {
	timer := time.NewTimer(p.next)
	defer timer.Stop()
	p.next = min(2*p.next, longestPause)
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// again decides, from its error and the time since the first one, whether to repeat a call.
type again func(err error, since time.Duration) bool

func always(error, time.Duration) bool { return true }

// whileAway repeats a call for as long as the engine is away, within a bound.
func whileAway(bound time.Duration) again {
	return func(err error, since time.Duration) bool {
		return codeOf(err) == CodeDockerUnavailable && since < bound
	}
}

// untilBack repeats a call for as long as the engine is away, without end, and within a bound after its
// return: the GPU's hook or the host's firewall may be ready later than the engine. What is gone stays gone.
func untilBack(bound time.Duration) again {
	var back time.Time // when the first other error came
	return func(err error, _ time.Duration) bool {
		switch codeOf(err) {
		case CodeNotFound:
			return false
		case CodeDockerUnavailable:
			back = time.Time{}
			return true
		}
		if back.IsZero() {
			back = time.Now()
		}
		return time.Since(back) < bound
	}
}

// insist calls until the call succeeds, is not to be repeated, or ctx ends. What is in the way is
// told as the rental's trouble.
func (l *life) insist(ctx context.Context, again again, call func(context.Context) error) error {
	pause := newPause()
	var first time.Time
	for {
		err := l.serve(ctx, call)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			l.setTrouble("")
			return nil
		}
		if first.IsZero() {
			first = time.Now()
		}
		if !again(err, time.Since(first)) {
			return err
		}
		if now := obstacle(err); now != l.trouble {
			l.log.Warn("a step of a rental is tried again and again", "error", err)
			l.setTrouble(now)
		}
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

// serve makes a call and tells progress and trouble meanwhile. It returns when the call has.
func (l *life) serve(ctx context.Context, call func(context.Context) error) error {
	var calls sync.WaitGroup
	defer calls.Wait()
	done := make(chan error, 1)
	calls.Go(func() { done <- call(ctx) })
	for {
		select {
		case err := <-done:
			return err
		case <-l.news:
			l.refresh()
		}
	}
}

func codeOf(err error) Code {
	if failure, ok := errors.AsType[*Failure](err); ok {
		return failure.Code
	}
	return ""
}

func obstacle(err error) string {
	if failure, ok := errors.AsType[*Failure](err); ok {
		return failure.Message
	}
	return "A step of this rental did not succeed; the agent keeps trying, its log has the details."
}
