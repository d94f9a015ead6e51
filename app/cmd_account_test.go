package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/core/account"
)

// pictures is a desk whose sign-in comes out as its pictures say; the first one is from before.
type pictures struct {
	refused   error
	told      []account.Info
	interrupt context.CancelFunc // after the last picture; nil: nobody interrupts
	cancelled bool
}

func (p *pictures) SignIn(context.Context, account.Method) (account.SigningIn, error) {
	return account.SigningIn{URL: "https://id.example.com/authorize"}, p.refused
}

func (p *pictures) CancelSignIn(context.Context) error {
	p.cancelled = true
	return nil
}

func (p *pictures) info(context.Context) (account.Info, error) { return p.told[0], nil }

func (p *pictures) infos(_ context.Context, yield func(account.Info) bool) error {
	for _, info := range p.told[1:] {
		if !yield(info) {
			break
		}
	}
	if p.interrupt != nil {
		p.interrupt()
	}
	return nil
}

// What a sign-in is said to have come to is what it came to, whatever key was there before.
func TestSignInOutcome(t *testing.T) {
	var (
		none    = account.Info{CanSignIn: true}
		old     = account.Info{SignedIn: true, Owner: "ada@example.com", NodeID: "n-1", KeyID: "k-1", KeySource: "keyring"}
		fresh   = account.Info{SignedIn: true, Owner: "ada@example.com", NodeID: "n-1", KeyID: "k-2", KeySource: "keyring"}
		given   = account.Info{SignedIn: true, KeySource: "environment (HOST_API_KEY)"}
		waiting = account.Info{SigningIn: &account.SigningIn{URL: "https://id.example.com/authorize"}}
	)
	with := func(info account.Info, problem string) account.Info {
		info.Problem = problem
		return info
	}
	for name, tt := range map[string]struct {
		infos []account.Info
		err   string // "": signed in
	}{
		"first":                  {[]account.Info{none, waiting, fresh}, ""},
		"again":                  {[]account.Info{old, waiting, fresh}, ""},
		"too late":               {[]account.Info{none, waiting, with(none, "Nobody signed in.")}, "Nobody signed in."},
		"again, too late":        {[]account.Info{old, waiting, with(old, "Nobody signed in.")}, "Nobody signed in."},
		"cancelled in the tray":  {[]account.Info{none, waiting, none}, "was cancelled"},
		"again, cancelled there": {[]account.Info{old, waiting, old}, "was cancelled"},
		"another key goes first": {[]account.Info{given, waiting, with(given, "The key is kept and not used.")}, "kept and not used"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			c := &cli{out: &out}
			err := c.signInAt(t.Context(), &pictures{told: tt.infos}, signInFlags{noBrowser: true})
			switch said := out.String(); {
			case tt.err == "" && (err != nil || !strings.Contains(said, "signed in as ada@example.com; this host is node n-1\nthe host key is kept in: keyring\n")):
				t.Errorf("%v, and said:\n%s", err, said)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(said, "signed in as")):
				t.Errorf("got %v, want %q; said:\n%s", err, tt.err, said)
			}
		})
	}
}

func TestInterruptedSignIn(t *testing.T) {
	for name, refused := range map[string]error{"waiting for the person": nil, "asking for the page": context.Canceled} {
		t.Run(name, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			at := &pictures{told: []account.Info{{}, {}}, refused: refused, interrupt: interrupt}
			if refused != nil {
				interrupt()
			}
			err := (&cli{out: &bytes.Buffer{}}).signInAt(ctx, at, signInFlags{noBrowser: true})
			if err == nil || !strings.Contains(err.Error(), "given up") || errors.Is(err, context.Canceled) || !at.cancelled {
				t.Errorf("got %v; the sign-in is cancelled: %t", err, at.cancelled)
			}
		})
	}
}
