package rental

import (
	"context"
	"errors"
	"time"
)

// Bounds of single steps on the way out.
const (
	withdrawBound = 10 * time.Second
	exitBound     = 5 * time.Second
)

// finish takes away what was made for the rental and tells its final status. Routes go first, so
// that nobody is led to a port that is someone else's by then. Only when container and network are
// gone is the rental final. It returns early when ctx ends; the next agent then finishes.
func (l *life) finish(ctx context.Context) {
	if l.made() {
		if err := l.clear(ctx); err != nil {
			return
		}
	}
	end := l.decision()
	_ = l.advance(ctx, sealed, func(r *record) {
		r.State, r.Failure, r.Ending = end.State, end.Failure, nil
		if r.EndedAt.IsZero() {
			r.EndedAt = time.Now().UTC().Round(0)
		}
	})
}

// made reports whether there may be something on the engine. What an earlier agent did last may
// not have reached its record.
func (l *life) made() bool {
	_, rec := l.page.read()
	return l.restored || (rec.State != Accepted && rec.State != Pulling)
}

func (l *life) clear(ctx context.Context) error {
	l.stopping()
	withdrawn := l.withdraw(ctx)
	if err := l.stop(ctx); err != nil {
		return err
	}
	_, rec := l.page.read()
	err := l.insist(ctx, always, func(ctx context.Context) error { return l.opts.Engine.Remove(ctx, l.id, rec.ContainerID) })
	if err != nil {
		return err
	}
	if err := l.giveBack(ctx); err != nil {
		return err
	}
	if withdrawn != nil {
		return l.insist(ctx, always, func(ctx context.Context) error { return l.opts.Relay.Withdraw(ctx, l.id) })
	}
	return nil
}

// stopping records the end that was decided. A disk that refuses it does not keep the rental alive.
func (l *life) stopping() {
	end := l.decision()
	rec, err := l.record(synced, func(r *record) {
		r.State, r.Ending, r.Addresses = Stopping, &end, nil
		switch {
		case l.exit != nil:
			r.setExit(*l.exit)
		case !l.missed.IsZero() && !r.StartedAt.IsZero():
			r.EndedAt = l.missed.UTC().Round(0)
		}
	})
	if err != nil {
		l.log.Error("recording that a rental is stopping; it is stopped all the same", "error", err)
		return
	}
	l.tell(rec)
}

func (r *record) setExit(exit Exit) {
	r.ExitCode, r.EndedAt = &exit.Code, exit.At
	if r.EndedAt.IsZero() {
		r.EndedAt = time.Now().UTC().Round(0)
	}
}

func (l *life) withdraw(ctx context.Context) error {
	if len(l.accepted.Spec.Ports) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, withdrawBound)
	defer cancel()
	err := l.serve(ctx, func(ctx context.Context) error { return l.opts.Relay.Withdraw(ctx, l.id) })
	if err != nil {
		l.log.Warn("withdrawing routes", "error", err)
	}
	l.onTrouble("")
	return err
}

// stop ends the container, unless it has ended by itself, and notes how and when.
func (l *life) stop(ctx context.Context) error {
	_, rec := l.page.read()
	if rec.ContainerID == "" || l.exit != nil || !rec.EndedAt.IsZero() {
		return nil
	}
	deadline := time.Now().Add(l.decision().Grace)
	err := l.insist(ctx, always, func(ctx context.Context) error {
		return l.stopWithin(ctx, rec.ContainerID, deadline)
	})
	if err == nil && !rec.StartedAt.IsZero() {
		l.noteExit(ctx, rec.ContainerID)
	}
	return err
}

// stopWithin stops the container, and stops it anew when the grace is shortened meanwhile.
func (l *life) stopWithin(ctx context.Context, container string, deadline time.Time) error {
	for {
		inner, cancel := context.WithCancelCause(ctx)
		grace := l.rushable(cancel)
		// Rounded up, since engines count whole seconds and would cut off what has just begun.
		left := max(0, time.Until(deadline)+time.Second-1).Truncate(time.Second)
		err := l.opts.Engine.Stop(inner, container, min(grace, left))
		hurried := context.Cause(inner) == errHurried
		cancel(nil)
		if err == nil || !hurried {
			return err
		}
	}
}

// rushable hands out the grace there is now; when it is shortened, rush is called.
func (l *life) rushable(rush context.CancelCauseFunc) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rush = rush
	return l.order.Grace
}

// noteExit keeps what the engine knows of the end before the container is removed.
func (l *life) noteExit(ctx context.Context, container string) {
	ctx, cancel := context.WithTimeout(ctx, exitBound)
	defer cancel()
	ended := time.Now().UTC().Round(0)
	exit, err := l.opts.Engine.Wait(ctx, container)
	_, writing := l.page.write(noted, func(r *record) {
		if r.EndedAt = ended; err == nil {
			r.setExit(exit)
		}
	})
	if err != nil || writing != nil {
		l.log.Warn("noting how the container ended", "error", errors.Join(err, writing))
	}
}
