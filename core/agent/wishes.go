package agent

import (
	"context"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// Who may want something of this node; the words are the wire's.
const (
	byUser    = "user"
	byBackend = "backend"
)

// The owner's and the backend's wishes are kept apart: the owner's pause holds whatever the backend
// wants, and the backend's drain holds when the owner's pause is over.

// wish is what counts: the owner's, or the backend's where the owner wants nothing else.
func (r *Remembered) wish() Wish {
	for _, w := range []Wish{r.Owner, r.Backend} {
		if !w.online() {
			return w
		}
	}
	return Wish{State: protocol.Online}
}

func (w Wish) online() bool { return w.State == "" || w.State == protocol.Online }

// want puts a wish of owner or backend in force, and answers once it is on disk.
func (l *loop) want(by string, w Wish, answer func(error)) {
	mine := &l.memory.Backend
	if by == byUser {
		mine = &l.memory.Owner
		if l.memory.Lapse != "" { // what he wanted before counts no more
			l.memory.Lapse = ""
			l.remember()
		}
	}
	if !w.online() {
		w.Reason = by
	}
	if *mine != w {
		*mine = w
		l.asker = by
		l.remember()
	}
	l.keep(answer)
}

// keepWishes does what time or the end of rentals brings about.
func (l *loop) keepWishes(now time.Time) {
	nothing := func(error) {}
	if owner := l.memory.Owner; owner.State == protocol.Paused && !owner.Until.IsZero() && !now.Before(owner.Until) {
		l.want(byUser, Wish{State: protocol.Online}, nothing)
	}
	if l.live() == 0 {
		clear(l.endAgain)
		for by, w := range map[string]Wish{byUser: l.memory.Owner, byBackend: l.memory.Backend} {
			if w.State == protocol.Draining {
				l.want(by, Wish{State: protocol.Paused}, nothing)
			}
		}
	}
	l.endOverdue(now)
}

// overdue tells whether the rentals that are left have to end, and why.
func (l *loop) overdue(now time.Time) (why *rental.Failure, yes bool) {
	due := func(w Wish) bool {
		return w.State == protocol.Draining && !w.EndAt.IsZero() && !now.Before(w.EndAt)
	}
	switch {
	case l.leaving == EndingRentals || due(l.memory.Owner):
		return endedByOwner(), true
	case due(l.memory.Backend):
		return nil, true
	}
	return nil, false
}

// endOverdue ends what is left after its time. What could not be told is told again.
func (l *loop) endOverdue(now time.Time) {
	const again = time.Second
	why, yes := l.overdue(now)
	if !yes {
		return
	}
	for _, s := range l.rentals {
		if s.State.Final() || s.State == rental.Stopping || now.Before(l.endAgain[s.ID]) {
			continue
		}
		l.endAgain[s.ID] = now.Add(again)
		l.end(s.ID, why, l.options.StopGrace, func(err error) {
			if err != nil {
				l.log.Error("ending a rental whose time has come", "rental", s.ID, "error", err)
			}
		})
	}
}

// quit makes the agent leave, or leave in another way.
func (l *loop) quit(how How) {
	l.leaving, l.leaveBy = how, time.Time{}
	if how == EndingRentals {
		l.leaveBy = time.Now().Add(l.options.StopGrace + endingBound)
	}
	l.stale = true
}

func endedByOwner() *rental.Failure {
	return rental.Failf(rental.CodeStoppedByHost, "The owner of the host has ended the rental.")
}

// ask has the loop grant a wish and waits for the answer.
func (a *Agent) ask(ctx context.Context, grant func(l *loop, answer func(error))) error {
	done := make(chan error, 1)
	a.mail.post(wish{grant, done})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.gone:
		return errLeaving
	}
}

// Pause takes no new rentals until Resume, or until a time; the zero time is never. Rentals that
// are there run on. The wish survives restarts.
func (a *Agent) Pause(ctx context.Context, until time.Time) error {
	if !until.IsZero() && !until.After(time.Now()) {
		return rental.Failf(rental.CodeInvalid, "A pause until %s would be over already; name a time to come.", until.Format(time.RFC3339))
	}
	a.ownersAct("pause", "", until)
	return a.ask(ctx, func(l *loop, answer func(error)) {
		l.want(byUser, Wish{State: protocol.Paused, Until: plain(until)}, answer)
	})
}

// Resume ends what Pause or Drain began, and what the backend asked of the offer. While the agent waits for rentals
// to end before it quits, Resume calls that off, and nothing else. A drain of the backend only the backend can end: with nothing else to resume from, that
// is the error.
func (a *Agent) Resume(ctx context.Context) error {
	a.ownersAct("resume", "", time.Time{})
	return a.ask(ctx, func(l *loop, answer func(error)) {
		if l.leaving == AfterRentals {
			l.leaving, l.stale = "", true
			answer(nil)
			return
		}
		if l.memory.Owner.online() && !l.memory.Backend.online() && l.memory.Proposal == nil {
			answer(rental.Failf(rental.CodeConflict, "The backend has drained this node, and takes it back into service itself."))
			return
		}
		if l.memory.Proposal != nil {
			l.memory.Proposal, l.asker = nil, byUser
			l.remember()
			l.reoffer()
		}
		l.want(byUser, Wish{State: protocol.Online}, answer)
	})
}

// Drain takes no new rentals and pauses the node when the last one has ended. Those still there at
// the deadline are ended; the zero time is no deadline. The wish survives restarts.
func (a *Agent) Drain(ctx context.Context, deadline time.Time) error {
	a.ownersAct("drain", "", deadline)
	return a.ask(ctx, func(l *loop, answer func(error)) {
		l.want(byUser, Wish{State: protocol.Draining, EndAt: plain(deadline)}, answer)
	})
}

// EndRental ends one rental, as its host's wish. It returns when the end is recorded, not reached.
func (a *Agent) EndRental(ctx context.Context, id rental.ID) error {
	a.ownersAct("end", shown(string(id), 80), time.Time{})
	return a.ask(ctx, func(l *loop, answer func(error)) {
		l.end(id, endedByOwner(), l.options.StopGrace, answer)
	})
}

// SpeedTest measures the network, unless a rental is running.
func (a *Agent) SpeedTest(ctx context.Context) (hardware.Network, error) {
	var network hardware.Network
	err := a.ask(ctx, func(l *loop, answer func(error)) {
		l.measure(func(n hardware.Network, err error) {
			network = n
			answer(err)
		})
	})
	if err != nil {
		return hardware.Network{}, err
	}
	return network, nil
}

// Quit makes Run return. Asked again, the last word counts.
func (a *Agent) Quit(how How) { a.mail.post(quitting{how}) }

// Retry tries again at once to reach the backend: a cause on this machine is over, such as an old key.
func (a *Agent) Retry() { a.parts.Link.Retry() }

// plain is a time that compares the same after it has been to disk and back.
func plain(t time.Time) time.Time { return t.UTC().Round(0) }
