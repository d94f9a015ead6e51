package backend

import (
	"math/rand/v2"
	"time"
)

const (
	firstWindow = 10 * time.Second  // of the first try after a loss
	floor       = time.Second       // under every later try
	widest      = 120 * time.Second // window
	localWindow = time.Second       // where the cause was on this machine

	lookPause      = time.Minute // where there is no key: looking for one asks nobody else
	lockedPause    = 30 * time.Second
	longestLocked  = 5 * time.Minute
	signInPause    = 5 * time.Minute
	longestSignIn  = 6 * time.Hour
	untrustedPause = time.Minute
	replacedPause  = time.Minute // two agents with one key would else drive each other out all the time
	longestWish    = time.Hour   // of a server's Retry-After
)

// backoff decides how long to wait before the next try. The first step is wide on purpose: after a
// short outage every agent comes back at once, and a narrow first step would be one spike.
type backoff struct {
	tries   int
	widened int // pauses of the latest kind of setback in a row
	latest  kind
	uniform func(limit time.Duration) time.Duration // U(0, limit)
}

func newBackoff() backoff { return backoff{uniform: uniform} }

func uniform(limit time.Duration) time.Duration { return rand.N(limit) }

// next is the pause after a setback.
func (b *backoff) next(s *setback) time.Duration {
	step := b.step()
	if s.kind != b.latest {
		b.latest, b.widened = s.kind, 0
	}
	switch {
	case s.retryAfter > 0:
		return min(s.retryAfter, longestWish) + b.uniform(firstWindow)
	case s.kind == local:
		return b.uniform(localWindow)
	case s.kind == keyless:
		return lookPause + b.uniform(lookPause/10)
	case s.kind == locked:
		return b.widening(lockedPause, longestLocked)
	case s.kind == refused || s.kind == barred:
		return b.widening(signInPause, longestSignIn)
	case s.kind == untrusted:
		return untrustedPause + step
	case s.kind == replaced:
		return replacedPause + b.uniform(replacedPause)
	case s.kind == restarting:
		return 5*time.Second + b.uniform(25*time.Second)
	case s.kind == overloaded:
		return 30*time.Second + b.uniform(30*time.Second)
	}
	return step
}

// widening is the pause where only a person can help: it doubles up to the longest, and a tenth of it is
// left to chance.
func (b *backoff) widening(first, longest time.Duration) time.Duration {
	pause := min(first<<min(b.widened, 16), longest)
	b.widened++
	return pause + b.uniform(pause/10)
}

// afterSleep is how long to wait still when the machine has slept in the pause after a setback: not at
// all, because no herd wakes up with us, unless the cause has a least pause of its own. left is what
// remains of it by the wall clock.
func (b *backoff) afterSleep(s *setback, left time.Duration) time.Duration {
	if s.retryAfter == 0 && (s.kind == ordinary || s.kind == local || s.kind == keyless || s.kind == locked) {
		left = 0
	}
	return max(0, left) + b.uniform(localWindow)
}

// step is U(0, 10 s), then 1 s + U(0, 10·2ⁿ s), the window capped at 120 s.
func (b *backoff) step() time.Duration {
	b.tries++
	if b.tries == 1 {
		return b.uniform(firstWindow)
	}
	window := firstWindow << min(b.tries-1, 4)
	return floor + b.uniform(min(window, widest))
}

// reset forgives the failures so far.
func (b *backoff) reset() { b.tries, b.widened = 0, 0 }
