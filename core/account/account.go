// Package account is this host's standing with the marketplace: whose host it is, the key by which it
// signs on, and how that key is got, exchanged and given back.
//
// The key itself is the keyring's; account.json in the state directory holds what belongs to it. A key
// from a place that is not this agent's, such as a file somebody named, goes before the one kept here,
// and is never exchanged.
package account

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/distributedcompute/host-agent/core/keyring"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/core/signin"
)

// Options are what an account works with.
type Options struct {
	Keys *keyring.Store
	// SignIn speaks to the marketplace; nil while its address is not known.
	SignIn *signin.Client
	// CanSignIn says that SignIn knows who vouches for people.
	CanSignIn bool
	StateDir  string
	Host      signin.Host  // what the marketplace is told; InstallID and ReplaceNodeID are filled in here
	Log       *slog.Logger // nil: silent
}

// Failure is why something was not done.
type Failure struct {
	Code    string // a stable word, as the backend's error codes
	Message string // one sentence for a person
	cause   error
}

// Error implements error.
func (f *Failure) Error() string { return f.Message }

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.cause }

const (
	conflict = "conflict"
	internal = "internal"
)

// broken is the failure to do something, with the cause in the sentence.
func broken(what string, cause error) *Failure {
	return &Failure{internal, what + ": " + strings.TrimSuffix(cause.Error(), ".") + ".", cause}
}

func noMarketplace() *Failure {
	return &Failure{Code: conflict, Message: "The marketplace's address is not set; set backend.url."}
}

// Account is the one of this host. Its methods may be called at any time, from any goroutine.
type Account struct {
	o      Options
	turn   chan struct{} // holds one token: whoever has it may change the key
	begun  chan *attempt // capacity 1: a sign-in to go on with
	judged chan struct{} // capacity 1: there is another verdict
	again  time.Duration // between two looks whether a new key was lost

	file sync.Mutex // guards account.json, and that record follows it; before mu

	mu      sync.Mutex
	changed func()
	record  record
	found   found
	running *attempt // nil while no sign-in is under way
	problem string
	verdict string
}

// found is what was found when the key was looked for last.
type found struct {
	key    bool // there is one, though it may not be readable now, or of no use
	source keyring.Source
}

// Open reads account.json of the state directory, which has to be there, and gives a host that has none
// its install id. It looks for no key and starts nothing.
func Open(o Options) (*Account, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r, err := readRecord(o.StateDir)
	if err != nil {
		o.Log.Warn("what is known of this host's account cannot be read; starting without", "error", err)
	}
	if r.InstallID == "" {
		r.InstallID = newID()
		if err := r.write(o.StateDir); err != nil {
			return nil, err
		}
	}
	return &Account{
		o: o, record: r, changed: func() {},
		turn: make(chan struct{}, 1), begun: make(chan *attempt, 1), judged: make(chan struct{}, 1),
		again: exchangeAgain,
	}, nil
}

// Info is the account as it was known last.
func (a *Account) Info() Info {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.info()
}

func (a *Account) info() Info {
	i := Info{SignedIn: a.found.key, KeySource: string(a.found.source), CanSignIn: a.canSignIn(), Problem: a.problem}
	switch {
	case !a.found.key:
	case a.o.Keys.Keeps(a.found.source):
		i.Owner, i.NodeID, i.KeyID = a.record.Owner, a.record.NodeID, a.record.KeyID
	case a.record.Kept && i.Problem == "":
		i.Problem = fmt.Sprintf("The key of the last sign-in is kept and not used, because the one from %s goes before it; take that one away and restart the agent to use it.", a.found.source)
	}
	if a.running != nil && a.running.prompt != nil {
		i.SigningIn = new(*a.running.prompt)
	}
	return i
}

func (a *Account) canSignIn() bool { return a.o.CanSignIn && a.o.SignIn != nil }

// Key looks for the host key. An empty key without an error says that there is none; the errors are the
// keyring's.
func (a *Account) Key(ctx context.Context) (secret.String, error) {
	key, _, err := a.look(ctx)
	if err == keyring.ErrNone { //nolint:errorlint // one that is wrapped has more to say
		return secret.String{}, nil
	}
	return key, err
}

// look looks for the key, and at what another process may have written down meanwhile.
func (a *Account) look(ctx context.Context) (secret.String, keyring.Source, error) {
	key, source, err := a.o.Keys.Find(ctx)
	if ctx.Err() != nil {
		return key, source, err // which says nothing of the key
	}
	now := found{!errors.Is(err, keyring.ErrNone) && !errors.Is(err, fs.ErrNotExist), source}
	a.file.Lock()
	defer a.file.Unlock()
	r, unread := readRecord(a.o.StateDir)
	a.change(func() {
		a.found = now
		if unread == nil && r.InstallID != "" {
			a.record = r
		}
	})
	return key, source, err
}

// note changes the record, on disk and here. Here it holds even if it cannot be written.
func (a *Account) note(change func(*record)) error {
	a.file.Lock()
	defer a.file.Unlock()
	r, err := readRecord(a.o.StateDir)
	if err != nil || r.InstallID == "" {
		r = a.known()
	}
	change(&r)
	err = r.write(a.o.StateDir)
	a.change(func() { a.record = r })
	return err
}

// known is the record as it was seen last.
func (a *Account) known() record {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.record
}

// change makes a change under the lock, and tells of it where it shows.
func (a *Account) change(apply func()) {
	a.mu.Lock()
	before := a.info()
	apply()
	shows, changed := !same(before, a.info()), a.changed
	a.mu.Unlock()
	if shows {
		changed()
	}
}

func same(a, b Info) bool {
	if (a.SigningIn == nil) != (b.SigningIn == nil) || a.SigningIn != nil && *a.SigningIn != *b.SigningIn {
		return false
	}
	a.SigningIn, b.SigningIn = nil, nil
	return a == b
}

// take waits for the turn to change the key.
func (a *Account) take(ctx context.Context) (giveBack func(), err error) {
	select {
	case a.turn <- struct{}{}:
		return func() { <-a.turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Info is what may be shown of an account. It holds no secret.
type Info struct {
	SignedIn  bool       `json:"signed_in"`            // there is a host key
	Owner     string     `json:"owner,omitempty"`      // e-mail address of whose host it is; "" where that is not known
	NodeID    string     `json:"node_id,omitempty"`    // the node the key is for; "" where that is not known
	KeyID     string     `json:"key_id,omitempty"`     // names the key without being it
	KeySource string     `json:"key_source,omitempty"` // where the key comes from, in words
	CanSignIn bool       `json:"can_sign_in"`          // the marketplace's sign-in is configured
	SigningIn *SigningIn `json:"signing_in,omitempty"` // null while no sign-in is under way
	// Problem says in one sentence why the last sign-in came to nothing; "" after another one has begun.
	Problem string `json:"problem,omitempty"`
}

// Method is how to sign in.
type Method string

// The methods of signing in. With none named the account chooses.
const (
	Browser Method = "browser" // on this machine, by a redirect to a loopback port
	Device  Method = "device"  // on any device, by a code
)

// SigningIn is a sign-in that waits for its person.
type SigningIn struct {
	Method    Method    `json:"method"`
	URL       string    `json:"url"`                 // to open in a browser
	UserCode  string    `json:"user_code,omitempty"` // to type or compare there; Device only
	ExpiresAt time.Time `json:"expires_at"`
}

// SignedOut says what became of a key that was given back.
type SignedOut struct {
	Revoked bool   `json:"revoked"`          // the marketplace has confirmed that the key is void
	Why     string `json:"why,omitempty"`    // one sentence: why it has not
	Source  string `json:"source,omitempty"` // a place from which the key was not removed, because it is not ours to clear; "" where it is gone
}
