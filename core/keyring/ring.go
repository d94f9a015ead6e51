package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	oskeyring "github.com/zalando/go-keyring"
)

// service is what the keyring shows the entries under.
const service = "DistributedCompute Host"

const (
	// quick is how long a keyring may take when nobody may be there to unlock it.
	quick = 3 * time.Second
	// patient is how long somebody gets to type the keyring's password.
	patient = time.Minute
)

var errSilent = errors.New("it does not answer, as when it waits to be unlocked")

// ring is the keyring of the operating system. A call to it can hang for as long as it asks for its
// password, and cannot be called off: so calls run on a goroutine of their own, which may outlive
// who asked, one at a time.
type ring struct {
	mu   sync.Mutex
	last *call // running, or done and not taken by anybody yet; nil: none
}

type call struct {
	verb, entry string
	done        chan struct{}
	value       string // with err: once done is closed
	err         error

	finished bool // guarded by ring.mu
	late     bool // guarded by ring.mu: who asked has gone
}

// answers reports whether the result of c is what the same question would get again.
func (c *call) answers(verb, entry string) bool {
	return verb == "get" && c.verb == verb && c.entry == entry
}

// get returns the text of an entry; ErrNone where there is none, ErrUnavailable where that cannot be told.
func (r *ring) get(ctx context.Context, entry string) (string, error) {
	value, err := r.call(ctx, quick, "get", entry, func() (string, error) { return oskeyring.Get(service, entry) }, nil)
	switch {
	case errors.Is(err, oskeyring.ErrNotFound):
		return "", fmt.Errorf("%w: %s no longer has its entry %q", ErrNone, ringName, entry)
	case err != nil && ctx.Err() == nil:
		return "", fmt.Errorf("%w: it is in %s, which cannot be used (%w); %s", ErrUnavailable, ringName, err, ringAdvice)
	}
	return value, err
}

// set makes an entry. One that is made after the limit is taken away again: the caller went another way.
func (r *ring) set(ctx context.Context, limit time.Duration, entry, text string) error {
	_, err := r.call(ctx, limit, "set", entry,
		func() (string, error) { return "", oskeyring.Set(service, entry, text) },
		func() { _ = oskeyring.Delete(service, entry) })
	return err
}

// remove takes an entry away, if it is there.
func (r *ring) remove(ctx context.Context, entry string) error {
	_, err := r.call(ctx, quick, "remove", entry, func() (string, error) { return "", oskeyring.Delete(service, entry) }, nil)
	switch {
	case errors.Is(err, oskeyring.ErrNotFound):
		return nil
	case err != nil && ctx.Err() == nil:
		return fmt.Errorf("entry %q of %s cannot be removed now (%w); %s, and sign out again", entry, ringName, err, ringAdvice)
	}
	return err
}

func (r *ring) call(ctx context.Context, limit time.Duration, verb, entry string, run func() (string, error), undo func()) (string, error) {
	if err := reachable(); err != nil {
		return "", err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		c, mine := r.join(verb, entry, run, undo)
		if c == nil {
			return "", errSilent
		}
		asked := mine || c.answers(verb, entry)
		select {
		case <-c.done:
			r.take(c)
			if asked {
				return c.value, c.err
			}
		case <-timer.C:
			if asked && !r.giveUp(c) {
				return c.value, c.err
			}
			return "", errSilent
		case <-ctx.Done():
			if mine && undo != nil && !r.giveUp(c) {
				return c.value, c.err
			}
			return "", ctx.Err()
		}
	}
}

// join returns the call to wait for: one that runs already, a result of the same question that came
// late, or a new one, which is the caller's. It is nil where the keyring owes an answer for too long.
func (r *ring) join(verb, entry string, run func() (string, error), undo func()) (c *call, mine bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.last; c != nil {
		select {
		case <-c.done:
			r.last = nil
			if c.answers(verb, entry) {
				return c, false
			}
		default:
			if c.late {
				return nil, false
			}
			return c, false
		}
	}
	c = &call{verb: verb, entry: entry, done: make(chan struct{})}
	r.last = c
	go func() {
		defer close(c.done)
		c.value, c.err = caught(run)
		if r.finish(c) && undo != nil && c.err == nil {
			_, _ = caught(func() (string, error) { undo(); return "", nil })
		}
	}()
	return c, true
}

// caught calls run and makes an error of a panic: the library dereferences what a bus that goes away
// during a prompt does not give it.
func caught(run func() (string, error)) (value string, err error) {
	defer func() {
		if p := recover(); p != nil {
			value, err = "", fmt.Errorf("its answer broke off (%v)", p)
		}
	}()
	return run()
}

// finish reports whether nobody waits for the result of c any more.
func (r *ring) finish(c *call) (late bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.finished = true
	return c.late
}

// giveUp stops waiting for c. Where it has just finished it returns false, and the result is there.
func (r *ring) giveUp(c *call) bool {
	r.mu.Lock()
	finished := c.finished && !c.late
	c.late = c.late || !finished
	r.mu.Unlock()
	if finished {
		<-c.done
		r.take(c)
	}
	return !finished
}

func (r *ring) take(c *call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == c {
		r.last = nil
	}
}
