package account

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/distributedcompute/host-agent/core/signin"
)

// keepBound is for a key to be kept: a keyring may ask its owner for its password first.
const keepBound = 90 * time.Second

var (
	errCancelled = &Failure{Code: conflict, Message: "The sign-in was cancelled."}
	errLeaving   = &Failure{Code: conflict, Message: "The agent is leaving."}
)

// attempt is one sign-in.
type attempt struct {
	how    Method
	ctx    context.Context
	cancel context.CancelCauseFunc
	shown  chan struct{} // closed once there is a prompt
	prompt *SigningIn    // guarded by Account.mu
	done   chan struct{} // closed when it is over
	err    error         // why it came to nothing, once done is closed
}

// SignIn begins a sign-in, with a browser where how does not say otherwise, and returns once a person can
// be sent to sign in. There is one at a time: while it is under way it is given again. It goes on in Run;
// what comes of it shows in Info.
func (a *Account) SignIn(ctx context.Context, how Method) (SigningIn, error) {
	switch how {
	case "":
		how = Browser
	case Browser, Device:
	default:
		return SigningIn{}, fmt.Errorf("signing in: takes %s, %s or nothing, got %.20q", Browser, Device, how)
	}
	if !a.canSignIn() {
		return SigningIn{}, &Failure{Code: conflict, Message: "Signing in is not set up here: set sign_in.issuer and sign_in.client_id, or store a host key of your dashboard with: distributed-agent setup --api-key-stdin < key.txt."}
	}
	t := a.begin(how)
	select {
	case <-t.shown:
	case <-t.done:
	case <-ctx.Done():
		return SigningIn{}, context.Cause(ctx)
	}
	a.mu.Lock()
	prompt := t.prompt
	a.mu.Unlock()
	if prompt == nil {
		return SigningIn{}, t.err
	}
	return *prompt, nil
}

// begin gives the attempt under way, or a new one to Run.
func (a *Account) begin(how Method) *attempt {
	var t *attempt
	a.change(func() {
		if t = a.running; t != nil {
			return
		}
		t = &attempt{how: how, shown: make(chan struct{}), done: make(chan struct{})}
		t.ctx, t.cancel = context.WithCancelCause(context.Background())
		a.running, a.problem = t, ""
		a.begun <- t // there is room: Run, or the end of the one before, has taken it
	})
	return t
}

// CancelSignIn ends a sign-in that is under way. One that has its key already is too far gone.
func (a *Account) CancelSignIn() { a.cancelSignIn(errCancelled) }

// cancelSignIn gives the sign-in that it ends; nil: there is none.
func (a *Account) cancelSignIn(why error) *attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running != nil {
		a.running.cancel(why)
	}
	return a.running
}

// Run goes on with sign-ins and exchanges a key before it expires, until ctx ends. changed is called after
// each change of Info, from whatever goroutine made it, and must return quickly. Run is called once.
func (a *Account) Run(ctx context.Context, changed func()) error {
	a.mu.Lock()
	a.changed = changed
	a.mu.Unlock()
	var working sync.WaitGroup
	defer working.Wait()
	working.Go(func() { a.keepFresh(ctx) })
	if _, _, err := a.look(ctx); err != nil {
		a.o.Log.Debug("looking for the host key", "error", err)
	}
	for {
		select {
		case t := <-a.begun:
			working.Go(func() { a.attend(ctx, t) })
		case <-ctx.Done():
			if t := a.cancelSignIn(errLeaving); t != nil {
				select {
				case <-a.begun:
					a.end(t, errLeaving)
				default: // it is being attended
				}
			}
			return nil
		}
	}
}

// attend sees a sign-in through.
func (a *Account) attend(ctx context.Context, t *attempt) {
	show := func(p signin.Prompt) {
		a.change(func() { t.prompt = &SigningIn{t.how, p.URL, p.UserCode, p.ExpiresAt} })
		close(t.shown)
	}
	sign := a.o.SignIn.Browser
	if t.how == Device {
		sign = a.o.SignIn.Device
	}
	credential, err := sign(t.ctx, a.host(), show)
	if err != nil {
		a.end(t, cmp.Or(context.Cause(t.ctx), err))
		return
	}
	// The key before is void already, whoever wants to cancel or leave.
	keeping, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepBound)
	defer cancel()
	a.end(t, a.accept(keeping, credential))
}

// end is the end of an attempt, however it came out. A person who has cancelled it needs no telling.
func (a *Account) end(t *attempt, err error) {
	told := err != nil && err != errCancelled && err != errLeaving
	switch {
	case err == nil:
		a.o.Log.Info("signed in")
	case told:
		a.o.Log.Warn("the sign-in came to nothing", "problem", err)
	}
	t.err = err
	t.cancel(nil)
	a.change(func() {
		a.running = nil
		if told {
			a.problem = err.Error()
		}
	})
	close(t.done)
}

// host is what the marketplace is told of this host.
func (a *Account) host() signin.Host {
	r, h := a.known(), a.o.Host
	h.InstallID, h.ReplaceNodeID = r.InstallID, r.NodeID
	return h
}
