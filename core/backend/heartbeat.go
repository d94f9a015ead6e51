package backend

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// pace is how often a heartbeat goes out. It may change at any time.
type pace struct {
	interval *atomic.Int64
	changed  chan struct{} // capacity 1
}

func newPace(interval time.Duration) pace {
	p := pace{interval: new(atomic.Int64), changed: make(chan struct{}, 1)}
	if interval <= 0 {
		interval = defaultHeartbeat
	}
	p.interval.Store(int64(interval))
	return p
}

func (p pace) get() time.Duration { return time.Duration(p.interval.Load()) }

func (p pace) set(interval time.Duration) {
	interval = min(max(interval, time.Second), time.Minute)
	if p.interval.Swap(int64(interval)) != int64(interval) {
		tick(p.changed)
	}
}

// beat hands the writer a heartbeat at every interval; the first went out with register. A beat
// that the writer has not sent yet is replaced, never queued.
func (s *session) beat(ctx context.Context) error {
	ticker := time.NewTicker(s.link.pace.get())
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.link.pace.changed:
			ticker.Reset(s.link.pace.get())
		case <-ticker.C:
			now := time.Now()
			if s.link.slept(last, now) {
				return &setback{kind: local, problem: "This machine was asleep.", cause: errSlept}
			}
			last = now
			latest(s.beats, s.talk.heartbeat())
		}
	}
}

var errSlept = errors.New("the wall clock ran ahead of the machine's own")

// sleptBetween reports whether the machine was asleep between two moments that it was awake at.
func sleptBetween(then, now time.Time) bool { return slept(wall(then, now), now.Sub(then)) }

// wall is the time between two moments by the wall clock, which goes on while the machine sleeps.
func wall(then, now time.Time) time.Duration { return now.Round(0).Sub(then.Round(0)) }

// slept reports whether the machine was asleep: the wall clock went on and the monotonic one did
// not. The connection is of no use then, and waiting for its silence would waste half a minute. A
// clock that was set forward looks the same and costs one new connection.
func slept(wall, awake time.Duration) bool { return wall-awake > 30*time.Second }

// latest puts a value into a channel of capacity 1 in place of what is there. One sender only.
func latest[T protocol.Heartbeat | string](c chan T, value T) {
	select {
	case <-c:
	default:
	}
	c <- value
}
