package rental

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// life drives one rental. Its goroutine, run, does one thing after the other; what others want of
// it (end, settle) or tell it (progress, trouble) reaches it through the page, mu and news.
type life struct {
	id       ID
	accepted heading // as ordered
	page     *page
	opts     *Options
	log      *slog.Logger
	notify   func(Status) // set before run
	restored bool         // taken over from an earlier agent
	census   *census      // of those that are
	over     chan struct{}
	latest   atomic.Pointer[Status]
	done     atomic.Bool // its end has been settled

	news chan struct{} // cap 1: progress or trouble has changed

	mu           sync.Mutex
	order        *ending                 // the first decision holds; only its grace may shrink
	cut          context.CancelCauseFunc // ends the work; nil before it
	rush         context.CancelCauseFunc // ends a stop that takes its time; nil before it
	progress     *Progress
	progressAt   time.Time
	relayTrouble string

	// Of run alone.
	trouble string    // with disk or engine
	lent    bool      // its GPUs are to be given back
	exit    *Exit     // how the container ended, once that is known
	unseen  bool      // no agent was there when it did
	missed  time.Time // when a container that is gone was last known to run; zero: none is
}

// errExited is the reason of a life whose container has ended by itself; how is in its exit.
var errExited = errors.New("the container has ended")

func newLife(opts *Options, p *page) *life {
	head, rec := p.read()
	l := &life{
		id: head.ID, accepted: head, page: p, opts: opts,
		log:   opts.Log.With("rental", head.ID),
		over:  make(chan struct{}),
		news:  make(chan struct{}, 1),
		order: rec.Ending,
	}
	picture := l.picture(rec)
	l.latest.Store(&picture)
	l.done.Store(!rec.SettledAt.IsZero())
	if rec.State.Final() {
		close(l.over)
	}
	return l
}

func (l *life) status() Status { return *l.latest.Load() }

func (l *life) final() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}

func (l *life) settled() bool { return l.done.Load() }

// run takes the rental to its end, or until ctx ends: then everything is left as it is.
func (l *life) run(ctx context.Context) {
	if !l.restored {
		l.announce()
	}
	l.work(ctx)
	if ctx.Err() == nil {
		l.finish(ctx)
	}
	if !l.final() {
		l.detach()
	}
}

// work does what a rental is for and returns once it is decided how it ends, or ctx has ended.
func (l *life) work(ctx context.Context) {
	inner, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	if !l.accepted.Spec.ExpiresAt.IsZero() {
		var clock sync.WaitGroup
		defer clock.Wait()
		watched, stop := context.WithCancel(inner)
		defer stop()
		clock.Go(func() { l.expire(watched, cut) })
	}
	if l.ordered(cut) {
		return
	}
	err := l.live(inner)
	if ctx.Err() == nil && !errors.Is(context.Cause(inner), errOrdered) {
		l.decide(l.verdict(inner, err))
	}
}

// expire calls cut when the rental's time is up. It looks at the clock every so often, because timers stand
// still while the machine sleeps and rented time does not.
func (l *life) expire(ctx context.Context, cut context.CancelCauseFunc) {
	const look = time.Minute
	for {
		left := time.Until(l.accepted.Spec.ExpiresAt)
		if left <= 0 {
			cut(errExpired)
			return
		}
		select {
		case <-time.After(min(left, look)):
		case <-ctx.Done():
			return
		}
	}
}

// ordered reports whether an end has been ordered already; if not, an order will call cut.
func (l *life) ordered(cut context.CancelCauseFunc) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	return l.order != nil
}

// live goes from state to state; it returns when there is no next one, with the reason.
func (l *life) live(ctx context.Context) error {
	var c Container
	var err error
	if l.restored {
		c, err = l.takeOver(ctx)
	}
	for err == nil {
		switch _, rec := l.page.read(); rec.State {
		case Accepted, Pulling:
			err = l.pull(ctx)
		case Creating:
			err = l.create(ctx)
		case Starting:
			c, err = l.start(ctx)
		default:
			err = l.attend(ctx, c)
		}
	}
	return err
}

// detach marks the page so that the next agent goes on counting where this one stopped.
func (l *life) detach() {
	if _, err := l.page.write(noted, func(r *record) { r.Reserved, r.Seen = r.Sequence, l.sight(r) }); err != nil {
		l.log.Warn("closing a rental's record", "error", err)
	}
}

// tick leaves a sign; one that has not been seen yet is as good as two.
func tick(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
