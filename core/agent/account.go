package agent

import (
	"context"
	"time"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/rental"
)

// accountTold says that the account has something new to show.
type accountTold struct{}

func (accountTold) apply(l *loop) {
	l.stale = true
	before, now := l.account, l.parts.Account.Info()
	l.account = now
	if now.NodeID != "" && now.NodeID != before.NodeID && now.NodeID != l.memory.NodeID {
		l.become(now.NodeID)
		l.keep(func(error) {})
	}
	if now.NodeID != "" && before.NodeID != "" && now.NodeID != before.NodeID {
		l.parts.Link.HangUp() // it serves the node of whoever was signed in before
	}
	if !now.SignedIn && before.SignedIn {
		l.become(l.memory.NodeID)
		l.keep(func(error) {})
		l.parts.Link.HangUp() // the marketplace does it too, if it could be told
	}
	if now.SignedIn != before.SignedIn || now.KeyID != before.KeyID || now.KeySource != before.KeySource {
		// The link asks the picture for the node's id, which has to be the key's by then.
		l.answers = append(l.answers, l.parts.Link.Retry)
	}
}

// become makes this host a node, or a node that nobody's account has: what was earned before was another's.
func (l *loop) become(node string) {
	l.memory.NodeID, l.memory.Earned = node, nil
	l.remember()
}

// SignIn begins to sign this host in, "" in the way the account chooses. It returns once a person can be
// sent to sign in, with the sign-in that is under way if there is one; what comes of it shows in the status.
func (a *Agent) SignIn(ctx context.Context, how account.Method) (account.SigningIn, error) {
	a.ownersAct("sign in", "", time.Time{})
	under, err := a.parts.Account.SignIn(ctx, how)
	a.shown(ctx)
	return under, err
}

// CancelSignIn ends a sign-in that is under way; without one there is nothing to do.
func (a *Agent) CancelSignIn(context.Context) error {
	a.parts.Account.CancelSignIn()
	return nil
}

// SignOut gives the host key back and forgets it. Rentals run on; new ones cannot come.
func (a *Agent) SignOut(ctx context.Context) (account.SignedOut, error) {
	a.ownersAct("sign out", "", time.Time{})
	out, err := a.parts.Account.SignOut(ctx)
	a.shown(ctx)
	return out, err
}

// RotateKey exchanges the host key for a new one.
func (a *Agent) RotateKey(ctx context.Context) error {
	a.ownersAct("rotate the host key", "", time.Time{})
	err := a.parts.Account.RotateKey(ctx)
	a.shown(ctx)
	return err
}

// shown waits until the picture shows what the account has just told: whoever asked looks there next.
func (a *Agent) shown(ctx context.Context) {
	// Without the loop, which is leaving, there is no other picture.
	_ = a.ask(ctx, func(_ *loop, answer func(error)) { answer(nil) })
}

// noAccount stands in where there is none: all that is known is where the key comes from.
type noAccount struct{ keySource string }

func (noAccount) Run(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

func (n noAccount) Info() account.Info { return account.Info{KeySource: n.keySource} }

func (noAccount) SignIn(context.Context, account.Method) (account.SigningIn, error) {
	return account.SigningIn{}, errNoAccount()
}

func (noAccount) CancelSignIn() {}

func (noAccount) SignOut(context.Context) (account.SignedOut, error) {
	return account.SignedOut{}, errNoAccount()
}

func (noAccount) RotateKey(context.Context) error { return errNoAccount() }

func errNoAccount() error {
	return rental.Failf(rental.CodeConflict, "This agent does not sign in; its host key comes another way.")
}
