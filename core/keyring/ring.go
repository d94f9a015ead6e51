package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
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

// ring is the keyring of the operating system. A question to it can hang for as long as it asks for its
// password, and cannot be called off: so each runs on a goroutine of its own, which may outlive who asked,
// one at a time.
type ring struct {
	turn   chan struct{} // holds one value while a question is open
	silent atomic.Bool   // the open question has had its time
}

func newRing() *ring { return &ring{turn: make(chan struct{}, 1)} }

// get returns the text of an entry; ErrNone where there is none, ErrUnavailable where that cannot be told.
func (r *ring) get(ctx context.Context, entry string) (string, error) {
	text, err := r.call(ctx, quick, func() (string, error) { return oskeyring.Get(service, entry) }, nil)
	switch {
	case errors.Is(err, oskeyring.ErrNotFound):
		return "", fmt.Errorf("%w: %s no longer has its entry %q", ErrNone, ringName, entry)
	case err != nil && ctx.Err() == nil:
		return "", fmt.Errorf("%w: it is in %s, which cannot be used (%w); %s", ErrUnavailable, ringName, err, ringAdvice)
	}
	return text, err
}

// set makes an entry. One that is made after the limit is taken away again: the caller went another way.
func (r *ring) set(ctx context.Context, limit time.Duration, entry, text string) error {
	_, err := r.call(ctx, limit,
		func() (string, error) { return "", oskeyring.Set(service, entry, text) },
		func() error { return oskeyring.Delete(service, entry) })
	return err
}

// remove takes an entry away, if it is there.
func (r *ring) remove(ctx context.Context, entry string) error {
	_, err := r.call(ctx, quick, func() (string, error) { return "", oskeyring.Delete(service, entry) }, nil)
	switch {
	case errors.Is(err, oskeyring.ErrNotFound):
		return nil
	case err != nil && ctx.Err() == nil:
		return fmt.Errorf("entry %q of %s cannot be removed now (%w); %s, and sign out again", entry, ringName, err, ringAdvice)
	}
	return err
}

// call puts a question to the keyring and waits for its answer. What succeeds after who asked has gone, at
// the limit or with ctx, is taken back by undo.
func (r *ring) call(ctx context.Context, limit time.Duration, run func() (string, error), undo func() error) (string, error) {
	if err := reachable(); err != nil {
		return "", err
	}
	if r.silent.Load() {
		return "", errSilent
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r.turn <- struct{}{}:
	case <-timer.C:
		return "", errSilent
	case <-ctx.Done():
		return "", ctx.Err()
	}
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer) // handed over or not: no answer is both taken and undone
	left := make(chan struct{})
	go func() {
		text, err := caught(run)
		select {
		case answers <- answer{text, err}:
		case <-left:
			if err == nil && undo != nil {
				_, _ = caught(func() (string, error) { return "", undo() })
			}
		}
		r.silent.Store(false)
		<-r.turn
	}()
	select {
	case a := <-answers:
		return a.text, a.err
	case <-timer.C:
		r.silent.Store(true)
		close(left)
		return "", errSilent
	case <-ctx.Done():
		close(left) // the keyring may yet answer in time, so the next one waits for its turn
		return "", ctx.Err()
	}
}

// caught calls run and makes an error of a panic: the library dereferences what a bus that goes away
// during a prompt does not give it.
func caught(run func() (string, error)) (text string, err error) {
	defer func() {
		if p := recover(); p != nil {
			text, err = "", fmt.Errorf("its answer broke off (%v)", p)
		}
	}()
	return run()
}
