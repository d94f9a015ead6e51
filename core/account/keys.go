package account

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/keyring"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/core/signin"
)

const (
	freshBefore = 7 * 24 * time.Hour // a key's end it is exchanged
	freshCheck  = 6 * time.Hour      // a machine that sleeps a lot has few hours in a week

	// exchangeLasts is more than the time in which a key that was exchanged is good beside the new one.
	exchangeLasts = 15 * time.Minute
	exchangeAgain = 2 * time.Minute
	exchangeBound = 30 * time.Second // for the marketplace to give a new key, whoever has stopped waiting

	// expired is the backend's code for a key whose time is over: it may still be exchanged.
	expired = "key_expired"

	revokeBound = 20 * time.Second
)

// Enrol exchanges an enrolment token for a host key and keeps it.
func (a *Account) Enrol(ctx context.Context, token secret.String) error {
	if a.o.SignIn == nil {
		return noMarketplace()
	}
	credential, err := a.o.SignIn.Enrol(ctx, a.host(), token)
	if err != nil {
		return err
	}
	return a.accept(ctx, credential)
}

// Store keeps a key that somebody has brought by hand.
func (a *Account) Store(ctx context.Context, key secret.String) error {
	return a.accept(ctx, signin.Credential{Key: key})
}

// accept keeps a new key and writes down what belongs to it.
func (a *Account) accept(ctx context.Context, c signin.Credential) error {
	giveBack, err := a.take(ctx)
	if err != nil {
		return err
	}
	defer giveBack()
	return a.keep(ctx, c)
}

// keep is accept for who has the turn. The key comes first: what belongs to it the marketplace tells again.
func (a *Account) keep(ctx context.Context, c signin.Credential) error {
	if _, err := a.o.Keys.Keep(ctx, c.Key); err != nil {
		return broken("The new host key cannot be kept", err)
	}
	err := a.note(func(r *record) {
		*r = record{InstallID: r.InstallID, Kept: true, NodeID: c.NodeID, KeyID: c.KeyID, Owner: c.Owner, ExpiresAt: c.ExpiresAt}
	})
	if _, _, lost := a.look(ctx); lost != nil {
		a.o.Log.Warn("looking for the host key that was just kept", "error", lost)
	}
	return err
}

// SignOut has the marketplace void the key, and forgets it whether or not that succeeded; but a kept key
// that cannot be read now stays as it is, or it would be good for ever. A sign-in under way is cancelled
// first. An error says that the kept key is still there, and whether it is void.
func (a *Account) SignOut(ctx context.Context) (SignedOut, error) {
	if t := a.cancelSignIn(errCancelled); t != nil {
		select {
		case <-t.done:
		case <-ctx.Done():
			return SignedOut{}, context.Cause(ctx)
		}
	}
	giveBack, err := a.take(ctx)
	if err != nil {
		return SignedOut{}, err
	}
	defer giveBack()
	kept, unread := a.o.Keys.Kept(ctx)
	if unread != nil && !errors.Is(unread, keyring.ErrNone) && !errors.Is(unread, keyring.ErrLost) {
		if ctx.Err() != nil {
			return SignedOut{}, context.Cause(ctx)
		}
		return SignedOut{}, &Failure{conflict, fmt.Sprintf("Not signed out: %v; sign out again once the key can be read.", unread), unread}
	}
	err = a.giveBack(ctx, kept, unread)
	out := SignedOut{Revoked: err == nil}
	if err != nil {
		out.Why = err.Error()
	}
	left, err := a.o.Keys.Forget(ctx)
	out.Source = string(left)
	if _, _, lost := a.look(ctx); lost != nil && !errors.Is(lost, keyring.ErrNone) {
		a.o.Log.Debug("looking for a host key after signing out", "error", lost)
	}
	if err != nil {
		fate := "The marketplace has made the host key void"
		if !out.Revoked {
			fate = fmt.Sprintf("The marketplace has made no key void (%s)", strings.TrimSuffix(out.Why, "."))
		}
		err = broken(fate+", but what is kept here could not be removed", err)
		a.o.Log.Warn("not signed out", "problem", err)
		return out, err
	}
	if err := a.note(func(r *record) { *r = record{InstallID: r.InstallID} }); err != nil {
		a.o.Log.Warn("what belonged to the key is still written down", "error", err) // which does no harm
	}
	a.change(func() { a.problem = "" })
	a.o.Log.Info("signed out", "revoked", out.Revoked, "why", out.Why)
	return out, nil
}

// giveBack has the marketplace void the key in use, and the kept one too where that is another. It tells why
// one of them is not void. kept is empty where unread, ErrNone or ErrLost, says why.
func (a *Account) giveBack(ctx context.Context, kept secret.String, unread error) error {
	key, source, err := a.look(ctx)
	switch {
	case a.o.Keys.Keeps(source):
		key, err = secret.String{}, nil // there is the kept one alone
		if errors.Is(unread, keyring.ErrNone) {
			err = &Failure{Code: conflict, Message: "There was no host key to give back."}
		}
	case err == nil:
		err = a.revoke(ctx, key)
	}
	switch {
	case unread == nil && !kept.Equal(key):
		err = cmp.Or(err, a.revoke(ctx, kept))
	case errors.Is(unread, keyring.ErrLost):
		a.o.Log.Warn("the kept host key cannot be read any more", "error", unread)
		err = cmp.Or[error](err, &Failure{conflict, "The kept host key could not be read any more, so it could not be made void.", unread})
	}
	return err
}

// revoke asks the marketplace what the key is before it gives it back: what is written down here may be
// of another one, if a crash came between the two.
func (a *Account) revoke(ctx context.Context, key secret.String) error {
	if a.o.SignIn == nil {
		return noMarketplace()
	}
	ctx, cancel := context.WithTimeout(ctx, revokeBound)
	defer cancel()
	self, err := a.o.SignIn.Self(ctx, key)
	if err == nil {
		err = a.o.SignIn.Revoke(ctx, self.NodeID, self.KeyID, key)
	}
	if refused(err) {
		return nil // it is void already
	}
	return err
}

// refused tells that the marketplace itself does not take a key any more.
func refused(err error) bool {
	refusal, ok := errors.AsType[*signin.Refusal](err)
	return ok && refusal.Status == http.StatusUnauthorized
}

// RotateKey exchanges the host key for a new one. The old one stays good until the new one is used, for some
// minutes at most: after a crash on the way, or a lost answer, Run exchanges it again. Once the new one is
// asked for, the end of ctx calls nothing off. A key from a place that is not this agent's is not exchanged.
func (a *Account) RotateKey(ctx context.Context) error {
	return a.exchange(ctx, func(record) bool { return true })
}

// exchange is RotateKey where the key is due for it, once nobody else is at work on it.
func (a *Account) exchange(ctx context.Context, due func(record) bool) error {
	giveBack, err := a.take(ctx)
	if err != nil {
		return err
	}
	defer giveBack()
	if !due(a.known()) {
		return nil
	}
	if a.o.SignIn == nil {
		return noMarketplace()
	}
	key, source, err := a.look(ctx)
	if err != nil {
		return err
	}
	known := a.known()
	if !a.o.Keys.Keeps(source) {
		return &Failure{Code: conflict, Message: fmt.Sprintf("The host key (%s) is not one that this agent has kept, so it is not exchanged; put a new one there.", source)}
	}
	self, err := a.o.SignIn.Self(ctx, key)
	if refusal, ok := errors.AsType[*signin.Refusal](err); ok && refusal.Code == expired && known.NodeID != "" {
		self, err = signin.Self{NodeID: known.NodeID, Owner: known.Owner}, nil
	}
	if err != nil {
		return err
	}
	// The old key goes void even if the new one cannot be kept: that is tried with the old one first.
	if _, err = a.o.Keys.Keep(ctx, key); err != nil {
		return broken("A new host key could not be kept", err)
	}
	err = a.note(func(r *record) {
		if !r.lost(time.Now()) {
			r.ExchangeBegan = time.Now().UTC()
		}
	})
	if err != nil {
		return err
	}
	// From here on the old key is nearly void, and the new one is lost with its answer: nobody calls it off.
	exchanging, called := context.WithTimeout(context.WithoutCancel(ctx), exchangeBound)
	defer called()
	fresh, err := a.o.SignIn.Rotate(exchanging, self.NodeID, key)
	if err != nil {
		if no, ok := errors.AsType[*signin.Refusal](err); ok && no.Status < 500 && no.Status != http.StatusTooManyRequests {
			err = errors.Join(err, a.note(func(r *record) { r.ExchangeBegan = time.Time{} }))
		}
		return err
	}
	if fresh.Owner == "" {
		fresh.Owner = self.Owner
	}
	keeping, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepBound)
	defer cancel()
	if err := a.keep(keeping, fresh); err != nil {
		return err
	}
	a.o.Log.Info("the host key was exchanged for a new one", "key", fresh.KeyID)
	return nil
}

// KeyJudged tells what the backend makes of the key: "" that it takes it, else the code of its refusal. It
// returns at once; a key that has expired is exchanged in Run, if the marketplace still does that.
func (a *Account) KeyJudged(code string) {
	a.mu.Lock()
	a.verdict = code
	a.mu.Unlock()
	select {
	case a.judged <- struct{}{}:
	default:
	}
}

// keepFresh exchanges the key before its time is over, when the backend says that it is, and again when
// the answer to an exchange was lost.
func (a *Account) keepFresh(ctx context.Context) {
	check, again := time.NewTimer(0), time.NewTicker(a.again)
	defer check.Stop()
	defer again.Stop()
	for {
		var due func(record) bool
		select {
		case <-ctx.Done():
			return
		case <-a.judged:
			a.hear()
			due = func(r record) bool { return r.Rejected == expired }
		case <-check.C:
			check.Reset(freshCheck)
			a.learn(ctx)
			due = func(r record) bool { return r.expiring(time.Now()) || r.lost(time.Now()) }
		case <-again.C:
			due = func(r record) bool { return r.lost(time.Now()) }
		}
		if !due(a.known()) {
			continue
		}
		if err := a.exchange(ctx, due); err != nil && ctx.Err() == nil {
			a.o.Log.Warn("the host key could not be exchanged", "problem", err)
		}
	}
}

// learn asks the marketplace what the kept key is, where that is not written down: a crash came in between,
// account.json was damaged, or the key was brought by hand. With its node known the next sign-in keeps that.
func (a *Account) learn(ctx context.Context) {
	giveBack, err := a.take(ctx)
	if err != nil {
		return
	}
	defer giveBack()
	key, source, err := a.look(ctx)
	if err != nil || key.Empty() || !a.o.Keys.Keeps(source) || a.known().NodeID != "" || a.o.SignIn == nil {
		return
	}
	self, err := a.o.SignIn.Self(ctx, key)
	if err == nil {
		err = a.note(func(r *record) {
			*r = record{InstallID: r.InstallID, Kept: true, NodeID: self.NodeID, KeyID: self.KeyID, Owner: self.Owner, ExpiresAt: self.ExpiresAt}
		})
	}
	if err != nil {
		a.o.Log.Debug("asking what the host key is", "problem", err)
	}
}

// hear writes the latest verdict down.
func (a *Account) hear() {
	a.mu.Lock()
	verdict := a.verdict
	known := a.record.Rejected == verdict
	a.mu.Unlock()
	if known {
		return
	}
	if err := a.note(func(r *record) { r.Rejected = verdict }); err != nil {
		a.o.Log.Warn("what the backend makes of the host key is not written down", "error", err)
	}
}
