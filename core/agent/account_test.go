package agent

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// standing is an account that the test changes.
type standing struct {
	trace *trace

	mu      sync.Mutex
	info    account.Info
	changed func()
	asked   []string
}

func (s *standing) Run(ctx context.Context, changed func()) error {
	s.mu.Lock()
	s.changed = changed
	s.mu.Unlock()
	<-ctx.Done()
	s.trace.note("account")
	return nil
}

func (s *standing) Info() account.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info
}

func (s *standing) become(info account.Info) {
	s.mu.Lock()
	s.info = info
	changed := s.changed
	s.mu.Unlock()
	changed()
	synctest.Wait()
}

func (s *standing) ask(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, what)
}

func (s *standing) SignIn(_ context.Context, how account.Method) (account.SigningIn, error) {
	s.ask("sign in by " + string(how))
	under := account.SigningIn{URL: "https://id.example.com"}
	s.mu.Lock()
	s.info.SigningIn = &under
	changed := s.changed
	s.mu.Unlock()
	changed()
	return under, nil
}

func (s *standing) CancelSignIn() { s.ask("cancel") }

func (s *standing) SignOut(context.Context) (account.SignedOut, error) {
	s.ask("sign out")
	return account.SignedOut{Revoked: true}, nil
}

func (s *standing) RotateKey(context.Context) error {
	s.ask("rotate")
	return nil
}

// A new key is used at once and for its own node, and the node is the same after a restart.
func TestAccount(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		who := &standing{info: account.Info{CanSignIn: true}}
		m.opts.NodeID = "node-0"
		m.opts.KeySource = "of no account"
		m.parts = func(p *Parts) { p.Account, who.trace = who, p.Meter.(*meter).trace }
		s := m.boot()
		count := func(what string) (n int) {
			for _, name := range s.trace.all() {
				if name == what {
					n++
				}
			}
			return n
		}
		retries := func() int { return count("retry") }
		if got := s.Status(); got.KeySource != "" || !got.Account.CanSignIn || got.NodeID != "node-0" || retries() != 0 {
			t.Errorf("before: %+v, %d retries", got, retries())
		}
		for _, step := range []struct {
			name    string
			info    account.Info
			node    string
			retries int
		}{
			{"signing in", account.Info{SigningIn: &account.SigningIn{URL: "https://id.example.com"}}, "node-0", 0},
			{"signed in", account.Info{SignedIn: true, NodeID: "node-1", KeyID: "k-1", KeySource: "keyring"}, "node-1", 1},
			{"the same", account.Info{SignedIn: true, NodeID: "node-1", KeyID: "k-1", KeySource: "keyring", Problem: "It was cancelled."}, "node-1", 1},
			{"rotated", account.Info{SignedIn: true, NodeID: "node-1", KeyID: "k-2", KeySource: "keyring"}, "node-1", 2},
			{"signed out", account.Info{}, "node-1", 3},
			{"a key by hand", account.Info{SignedIn: true, KeySource: "keyring"}, "node-1", 4},
			{"moved", account.Info{SignedIn: true, NodeID: "node-2", KeyID: "k-3", KeySource: "keyring"}, "node-2", 5},
			{"another account", account.Info{SignedIn: true, NodeID: "node-3", KeyID: "k-4", KeySource: "keyring"}, "node-3", 6},
		} {
			s.link.in <- protocol.Incoming{Data: &protocol.Earnings{Currency: "USD", Today: "4.18"}}
			synctest.Wait()
			was := s.Status()
			who.become(step.info)
			got := s.Status()
			another := got.NodeID != was.NodeID || was.Account.SignedIn && !got.Account.SignedIn
			if kept := got.Earnings != nil; kept == another {
				t.Errorf("%s: earnings of the node before are kept: %t", step.name, kept)
			}
			if diff := cmp.Diff(step.info, got.Account); diff != "" || got.KeySource != step.info.KeySource || got.NodeID != step.node {
				t.Errorf("%s: node %q, key source %q, account (-want +got):\n%s", step.name, got.NodeID, got.KeySource, diff)
			}
			if retries() != step.retries {
				t.Errorf("%s: %d retries, want %d", step.name, retries(), step.retries)
			}
		}
		if n := count("hang up"); n != 2 {
			t.Errorf("hung up %d times", n)
		}
		// The backend has the last word on the node, until there is word of another one.
		s.mustOK(&protocol.Registered{NodeID: "node-9"})
		who.become(account.Info{SignedIn: true, NodeID: "node-3", KeyID: "k-3", KeySource: "keyring", Owner: "ada@example.com"})
		if got := s.Status().NodeID; got != "node-9" {
			t.Errorf("node %q", got)
		}
		who.become(account.Info{SignedIn: true, NodeID: "node-4", KeyID: "k-5", KeySource: "keyring"})
		s.leave()
		if ended := s.trace.all(); slices.Index(ended, "account") < slices.Index(ended, "link") {
			t.Errorf("ended in the order %v", ended)
		}
		if saved, err := m.state.Load(); err != nil || saved.NodeID != "node-4" {
			t.Errorf("remembered %q, %v", saved.NodeID, err)
		}
	})
}

func TestAccountIsAsked(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		who := &standing{}
		m.parts = func(p *Parts) { p.Account, who.trace = who, p.Meter.(*meter).trace }
		s := m.boot()
		in, err := s.SignIn(t.Context(), account.Device)
		if err != nil || in.URL != "https://id.example.com" {
			t.Errorf("signing in: %+v, %v", in, err)
		}
		if under := s.Status().Account.SigningIn; under == nil || *under != in {
			t.Errorf("whoever has signed in is shown %+v, not %+v", under, in)
		}
		out, err := s.SignOut(t.Context())
		if err != nil || !out.Revoked {
			t.Errorf("signing out: %+v, %v", out, err)
		}
		if s.CancelSignIn(t.Context()) != nil || s.RotateKey(t.Context()) != nil {
			t.Error("cancelling or rotating failed")
		}
		if diff := cmp.Diff([]string{"sign in by device", "sign out", "cancel", "rotate"}, who.asked); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
		s.leave()
	})
}

func TestNoAccount(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		m.opts.KeySource = "file /k"
		s := m.boot()
		if got := s.Status(); got.KeySource != "file /k" || got.Account.CanSignIn {
			t.Errorf("got %+v", got)
		}
		_, in := s.SignIn(t.Context(), "")
		_, out := s.SignOut(t.Context())
		for _, err := range []error{in, out, s.RotateKey(t.Context())} {
			if err == nil || !strings.Contains(err.Error(), "comes another way") {
				t.Errorf("got %v", err)
			}
		}
		s.leave()
	})
}

func TestSignInFix(t *testing.T) {
	for name, tc := range map[string]struct {
		info account.Info
		want string
	}{
		"no key":                {account.Info{CanSignIn: true}, "Sign in from the tray, or run: distributed-agent sign-in."},
		"key no longer good":    {account.Info{CanSignIn: true, SignedIn: true, KeyID: "k", KeySource: "keyring"}, "Sign in again from the tray, or run: distributed-agent sign-in. Rentals run on meanwhile."},
		"key of another place":  {account.Info{CanSignIn: true, SignedIn: true, KeySource: "file /k"}, "Get a new host key from your dashboard. This agent's is file /k: put the new one there"},
		"no key and no sign-in": {account.Info{}, "Get a new host key from your dashboard. Store it with: distributed-agent setup --api-key-stdin < key.txt."},
	} {
		if got := signInFix(tc.info); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}
