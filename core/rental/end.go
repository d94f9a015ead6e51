package rental

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Causes by which the context of a life's work ends; any other means that the agent is leaving.
var (
	errOrdered = errors.New("the rental is to end")
	errExpired = errors.New("the rental's time is up")
	errHurried = errors.New("the grace has been shortened")
)

// End ends a rental, whatever it is doing. Without a why, or with one, it comes to be Stopped; why
// is then told in its final status (expired, stopped_by_host): Failed is for what broke. The
// container gets grace to end by itself. End returns once the order is recorded, not when the
// rental has ended. Ending it again can only shorten the grace; ending what has ended succeeds; an
// unknown ID is a *Failure with CodeNotFound.
func (b *Book) End(id ID, why *Failure, grace time.Duration) error {
	l, ok := b.find(id)
	if !ok {
		return Failf(CodeNotFound, "There is no rental %s on this host.", id)
	}
	if l.final() {
		return nil
	}
	if err := b.running(); err != nil {
		return err
	}
	l.end(ending{State: Stopped, Failure: why, Grace: max(0, grace)})
	return nil
}

// end is an order from outside. It is recorded before it is carried out, and carried out even if
// it cannot be recorded: a host must always get rid of a rental.
func (l *life) end(e ending) {
	if !l.decide(e) {
		l.hasten(e.Grace)
		return
	}
	if _, err := l.page.write(synced, func(r *record) {
		if !r.State.Final() {
			r.Ending = &e
		}
	}); err != nil {
		l.log.Error("recording that a rental is to end; it is being ended all the same", "error", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut != nil {
		l.cut(errOrdered)
	}
}

// decide settles how the rental ends. It reports whether e is the first word on that.
func (l *life) decide(e ending) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.order != nil {
		return false
	}
	l.order = &e
	return true
}

func (l *life) hasten(grace time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if grace < l.order.Grace {
		shorter := *l.order
		shorter.Grace = grace
		l.order = &shorter
		if l.rush != nil {
			l.rush(errHurried)
		}
	}
}

func (l *life) decision() ending {
	l.mu.Lock()
	defer l.mu.Unlock()
	return *l.order
}

// verdict turns the reason for which live returned into the way the rental is to end: a program
// that ended with code 0 has done its work, any other exit is a failure of the container.
func (l *life) verdict(ctx context.Context, err error) ending {
	if l.exit != nil {
		return l.outcome(*l.exit)
	}
	if errors.Is(context.Cause(ctx), errExpired) {
		return ending{State: Stopped, Failure: Failf(CodeExpired, "The rental's time was up at %s.", l.accepted.Spec.ExpiresAt.Format(time.RFC3339)), Grace: expiryGrace}
	}
	failure, ok := errors.AsType[*Failure](err)
	if !ok {
		l.log.Error("a rental failed for a reason that has no name", "error", err)
		failure = Failf(CodeInternal, "The agent could not go on with the rental for a reason it does not know; its log has the details.")
	}
	return ending{State: Failed, Failure: failure}
}

// expiryGrace is what a container gets to end by itself when its time is up.
const expiryGrace = 10 * time.Second

func (l *life) outcome(exit Exit) ending {
	switch {
	case exit.Failure != nil:
		return ending{State: Failed, Failure: exit.Failure}
	case exit.OOMKilled:
		return ending{State: Failed, Failure: Failf(CodeContainerFailed, "The container ran out of its %s of memory and was killed.", sizeText(l.accepted.Spec.MemoryBytes))}
	case l.unseen && exit.cutOff():
		return ending{State: Failed, Failure: Failf(CodeInterrupted, "The container was cut off while the agent was away (exit code %d): the host or its container engine was shut down.", exit.Code)}
	case exit.Code != 0:
		return ending{State: Failed, Failure: Failf(CodeContainerFailed, "The container's program ended with exit code %d%s.", exit.Code, meaning(exit.Code))}
	}
	return ending{State: Stopped}
}

// meaning is what an exit code mostly stands for.
func meaning(code int) string {
	switch code {
	case 126:
		return ": its command may not be executed"
	case 127:
		return ": its command was not found in the image"
	case 137:
		return ": it was killed"
	case 143:
		return ": it was asked to end"
	}
	return ""
}

// cutOff reports whether an end looks like that of the host or its engine rather than of the program:
// a shutdown terminates and then kills, and what a power cut has ended leaves no code.
func (e Exit) cutOff() bool {
	const killed, terminated, unknown = 137, 143, 255
	return e.Code == killed || e.Code == terminated || e.Code == unknown
}

func sizeText(bytes int64) string {
	if bytes >= 1<<30 {
		return fmt.Sprintf("%.4g GiB", float64(bytes)/(1<<30))
	}
	return fmt.Sprintf("%.4g MiB", float64(bytes)/(1<<20))
}
