package agent

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
)

// board shows the latest picture. Readers never wait for the loop, and the loop never for them.
type board struct {
	latest atomic.Pointer[Status]

	mu       sync.Mutex
	watchers map[chan struct{}]struct{} // capacity 1 each: "there is another picture"
}

func (b *board) publish(s *Status) {
	b.latest.Store(s)
	b.mu.Lock()
	defer b.mu.Unlock()
	for tick := range b.watchers {
		notify(tick)
	}
}

func (b *board) join() (tick chan struct{}, leave func()) {
	tick = make(chan struct{}, 1)
	b.mu.Lock()
	b.watchers[tick] = struct{}{}
	b.mu.Unlock()
	return tick, func() {
		b.mu.Lock()
		delete(b.watchers, tick)
		b.mu.Unlock()
	}
}

// Status returns the latest picture of the host, with metrics as fresh as the asking. It never waits.
func (a *Agent) Status() Status {
	s := *a.board.latest.Load()
	s.Sample = a.parts.Meter.Sample()
	return s
}

// Watch yields the full picture at once and then after every change, until ctx ends or the agent
// has left, whose last picture it still yields. A slow reader skips pictures and blocks nobody.
func (a *Agent) Watch(ctx context.Context) iter.Seq[Status] {
	return func(yield func(Status) bool) {
		tick, leave := a.board.join()
		defer leave()
		for yield(a.Status()) {
			select {
			case <-tick:
			case <-ctx.Done():
				return
			case <-a.gone:
				yield(a.Status())
				return
			}
		}
	}
}
