package account_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/keyring"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/core/signin"
)

// desk is one state directory and its marketplace.
type desk struct {
	t      *testing.T
	market *market
	dir    string
	given  string        // HOST_API_KEY
	phrase string        // names the passphrase's file
	again  time.Duration // 0: as it is
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("it would write to the keyring of whoever runs it")
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
	return &desk{t: t, market: openMarket(t), dir: t.TempDir()}
}

// open is an account at work, until the test ends.
func (d *desk) open() *working {
	d.t.Helper()
	client, err := signin.New(signin.Options{Issuer: d.market.URL, ClientID: clientID, API: d.market.URL, AllowInsecureLoopback: true, Version: "1.2.3"})
	if err != nil {
		d.t.Fatal(err)
	}
	keys := keyring.New(keyring.Options{StateDir: d.dir, Origin: d.market.URL, Given: secret.New(d.given), PassphraseFile: d.phrase})
	a, err := account.Open(account.Options{Keys: keys, SignIn: client, CanSignIn: true, StateDir: d.dir, Host: signin.Host{Hostname: "rig", OS: "linux", Arch: "amd64"}})
	if err != nil {
		d.t.Fatal(err)
	}
	if d.again != 0 {
		a.SetAgain(d.again)
	}
	w := &working{Account: a, t: d.t, changed: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := a.Run(ctx, w.tell); err != nil {
			d.t.Error(err)
		}
	})
	w.leave = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	d.t.Cleanup(w.leave)
	return w
}

type working struct {
	*account.Account
	t       *testing.T
	changed chan struct{}
	leave   func()
}

func (w *working) tell() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// await waits until the account tells of what is wanted.
func (w *working) await(wanted func(account.Info) bool) account.Info {
	w.t.Helper()
	late := time.After(20 * time.Second)
	for {
		if i := w.Info(); wanted(i) {
			return i
		}
		select {
		case <-w.changed:
		case <-late:
			w.t.Fatalf("still %+v", w.Info())
		}
	}
}

func (w *working) key() string {
	w.t.Helper()
	key, err := w.Key(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return key.Reveal()
}

func (d *desk) enrolled() *working {
	d.t.Helper()
	w := d.open()
	if err := w.Enrol(d.t.Context(), secret.New("dce_token")); err != nil {
		d.t.Fatal(err)
	}
	return w
}

func signedIn(i account.Info) bool { return i.SignedIn && i.SigningIn == nil }

var anySource = cmpopts.IgnoreFields(account.Info{}, "KeySource")

func TestBrowser(t *testing.T) {
	d := newDesk(t)
	w := d.open()
	if got := w.Info(); got != (account.Info{CanSignIn: true}) {
		t.Errorf("before: %+v", got)
	}
	if w.key() != "" {
		t.Error("there is a key before")
	}
	prompt, err := w.SignIn(t.Context(), "")
	if err != nil || prompt.Method != account.Browser || prompt.UserCode != "" || time.Until(prompt.ExpiresAt) < time.Minute {
		t.Fatalf("prompt %+v, %v", prompt, err)
	}
	if again, err := w.SignIn(t.Context(), account.Device); err != nil || again != prompt {
		t.Errorf("a second one: %+v, %v", again, err)
	}
	if got := w.Info().SigningIn; got == nil || *got != prompt {
		t.Errorf("shows %+v", got)
	}
	d.market.visit(t, prompt.URL)
	want := account.Info{SignedIn: true, Owner: "ada@example.com", NodeID: "node-1", KeyID: "k-1", CanSignIn: true}
	if diff := cmp.Diff(want, w.await(signedIn), anySource); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
	if w.key() != "host-key-1" || w.Info().KeySource == "" {
		t.Errorf("key %q from %q", w.key(), w.Info().KeySource)
	}

	// A sign-in again replaces this node's key and says which node it is.
	prompt, err = w.SignIn(t.Context(), account.Browser)
	if err != nil {
		t.Fatal(err)
	}
	d.market.visit(t, prompt.URL)
	w.await(func(i account.Info) bool { return i.KeyID == "k-2" })
	d.market.with(func() {
		if d.market.told["replace_node_id"] != "node-1" || d.market.told["hostname"] != "rig" || d.market.told["agent_version"] != "1.2.3" {
			t.Errorf("told %v", d.market.told)
		}
	})

	// The next agent knows it too, and nothing but the keyring has the key.
	w.leave()
	if diff := cmp.Diff(w.Info(), d.open().await(signedIn)); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
	text, err := os.ReadFile(filepath.Join(d.dir, "account.json"))
	if err != nil || strings.Contains(string(text), "host-key") || strings.Contains(string(text), "access-token") {
		t.Errorf("account.json (%v): %s", err, text)
	}
	if info, err := os.Stat(filepath.Join(d.dir, "account.json")); err != nil || info.Mode() != 0o600 {
		t.Errorf("account.json: %v, %v", info.Mode(), err)
	}
}

func TestSignInComesToNothing(t *testing.T) {
	t.Run("cancelled", func(t *testing.T) {
		d := newDesk(t)
		w := d.open()
		if _, err := w.SignIn(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		w.CancelSignIn()
		if got := w.await(func(i account.Info) bool { return i.SigningIn == nil }); got.SignedIn || got.Problem != "" {
			t.Errorf("got %+v", got)
		}
		w.CancelSignIn() // nothing to do
	})
	t.Run("the agent leaves", func(t *testing.T) {
		w := newDesk(t).open()
		if _, err := w.SignIn(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		w.leave()
		if got := w.Info(); got.SigningIn != nil || got.Problem != "" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("no device grant", func(t *testing.T) {
		w := newDesk(t).open()
		_, err := w.SignIn(t.Context(), account.Device)
		if err == nil || !strings.Contains(err.Error(), "does not offer signing in by code") {
			t.Fatalf("got %v", err)
		}
		if got := w.await(func(i account.Info) bool { return i.Problem != "" }); got.Problem != err.Error() {
			t.Errorf("got %+v", got)
		}
		if _, err := w.SignIn(t.Context(), ""); err != nil || w.Info().Problem != "" {
			t.Errorf("another one: %v, %+v", err, w.Info())
		}
		w.CancelSignIn()
		w.await(func(i account.Info) bool { return i.SigningIn == nil })
		if _, err := w.SignIn(t.Context(), account.Device); err == nil {
			t.Error("no error")
		}
		if _, err := w.SignOut(t.Context()); err != nil || w.Info().Problem != "" {
			t.Errorf("signed out: %v, %+v", err, w.Info())
		}
	})
	t.Run("provider down", func(t *testing.T) {
		d := newDesk(t)
		d.market.with(func() { d.market.down = true })
		w := d.open()
		if _, err := w.SignIn(t.Context(), ""); err == nil {
			t.Error("no error")
		}
	})
	t.Run("no such way", func(t *testing.T) {
		if _, err := newDesk(t).open().SignIn(t.Context(), "mail"); err == nil || !strings.Contains(err.Error(), `takes browser, device or nothing, got "mail"`) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the key cannot be kept", func(t *testing.T) {
		if os.Getuid() == 0 {
			t.Skip("root may write anywhere")
		}
		d := newDesk(t)
		w := d.open()
		prompt, err := w.SignIn(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d.dir, 0o500); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(d.dir, 0o700)
		d.market.visit(t, prompt.URL)
		if got := w.await(func(i account.Info) bool { return i.Problem != "" }); !strings.HasPrefix(got.Problem, "The new host key cannot be kept: ") {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("not set up", func(t *testing.T) {
		a, err := account.Open(account.Options{Keys: keyring.New(keyring.Options{}), StateDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.SignIn(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "set sign_in.issuer") || a.Info().CanSignIn {
			t.Errorf("got %v", err)
		}
		if err := a.Enrol(t.Context(), secret.New("dce_token")); err == nil || !strings.Contains(err.Error(), "set backend.url") {
			t.Errorf("enrolling: %v", err)
		}
	})
}

func TestSignOut(t *testing.T) {
	const own, byHand = "DELETE /v1/hosts/node-1/keys/k-1", "DELETE /v1/hosts/node-h/keys/k-h"
	const environment = "environment (HOST_API_KEY)"
	for _, test := range []struct {
		name    string
		given   string
		before  func(*market)
		want    account.SignedOut
		left    bool     // a key is
		revokes []string // requests
	}{
		{"", "", func(*market) {}, account.SignedOut{Revoked: true}, false, []string{own}},
		{"void already", "", func(m *market) { m.keys["host-key-1"].refused = "key_revoked" }, account.SignedOut{Revoked: true}, false, nil},
		{"expired", "", func(m *market) { m.keys["host-key-1"].refused = "key_expired" }, account.SignedOut{Revoked: true}, false, nil},
		{"marketplace in trouble", "", func(m *market) { m.down = true }, account.SignedOut{Why: "The marketplace says: No, closed_today."}, false, nil},
		{"overruled", "host-key-by-hand", func(m *market) { m.keys["host-key-by-hand"] = &hostKey{id: "k-h", node: "node-h"} }, account.SignedOut{Revoked: true, Source: environment}, true, []string{own, byHand}},
		{"overruled by a void one", "host-key-by-hand", func(*market) {}, account.SignedOut{Revoked: true, Source: environment}, true, []string{own}},
		{"overruled by junk", "junk", func(*market) {}, account.SignedOut{Why: environment + ": a host key takes 8 to 512 characters, got 4", Source: environment}, true, []string{own}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDesk(t)
			d.enrolled().leave()
			d.given = test.given
			d.market.with(func() { test.before(d.market) })
			w := d.open()
			if _, err := w.SignIn(t.Context(), ""); err != nil && !strings.Contains(err.Error(), "OpenID") {
				t.Fatal(err)
			}
			got, err := w.SignOut(t.Context())
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
			if test.given != "junk" && (w.key() != "") != test.left {
				t.Errorf("the key is %q", w.key())
			}
			if i := w.Info(); i.SignedIn != test.left || i.Owner != "" || i.NodeID != "" || i.KeyID != "" || i.SigningIn != nil {
				t.Errorf("shows %+v", i)
			}
			for _, request := range []string{own, byHand} {
				if n := d.market.count(request); n > 1 || n == 1 != slices.Contains(test.revokes, request) {
					t.Errorf("asked %d times: %s", n, request)
				}
			}
			w.leave()
			if w := d.open(); test.given != "junk" && (w.key() != "") != test.left {
				t.Errorf("after a restart the key is %q", w.key())
			}
		})
	}
	t.Run("nothing there", func(t *testing.T) {
		got, err := newDesk(t).open().SignOut(t.Context())
		if want := (account.SignedOut{Why: "There was no host key to give back."}); err != nil || got != want {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

// A kept key that cannot be read now is not given up: it would stay good, and nobody could give it back.
func TestSignOutUnread(t *testing.T) {
	withhold := func(d *desk, _ string) error { d.phrase = ""; return nil }
	give := func(d *desk, _ string) error { d.phrase = filepath.Join(d.dir, "passphrase"); return nil }
	const withheld = "encrypted with a passphrase and none is given"
	for _, test := range []struct {
		name, given string
		spoil, mend func(d *desk, file string) error
		want        string
	}{
		{"passphrase not given", "", withhold, give, withheld},
		{"overruled", "host-key-by-hand", withhold, give, withheld},
		{
			"others can read it", "",
			func(_ *desk, file string) error { return os.Chmod(file, 0o644) },
			func(_ *desk, file string) error { return os.Chmod(file, 0o600) },
			"run: chmod 600",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDesk(t)
			d.phrase = filepath.Join(d.dir, "passphrase")
			if err := os.WriteFile(d.phrase, []byte("a passphrase of twenty-four and more"), 0o600); err != nil {
				t.Fatal(err)
			}
			d.enrolled().leave()
			d.given = test.given
			d.market.with(func() { d.market.keys["host-key-by-hand"] = &hostKey{id: "k-h", node: "node-h"} })
			file := filepath.Join(d.dir, "credentials.age")
			if err := test.spoil(d, file); err != nil {
				t.Fatal(err)
			}
			w := d.open()
			for range 2 {
				got, err := w.SignOut(t.Context())
				if err == nil || got != (account.SignedOut{}) || !strings.HasPrefix(err.Error(), "Not signed out: ") || !strings.Contains(err.Error(), test.want) || !strings.HasSuffix(err.Error(), "; sign out again once the key can be read.") {
					t.Fatalf("got %+v, %v", got, err)
				}
			}
			d.market.with(func() {
				for name, key := range d.market.keys {
					if key.refused != "" {
						t.Errorf("%s is void", name)
					}
				}
			})
			w.leave()
			if err := test.mend(d, file); err != nil {
				t.Fatal(err)
			}
			got, err := d.open().SignOut(t.Context())
			if err != nil || !got.Revoked {
				t.Errorf("then: %+v, %v", got, err)
			}
			d.market.with(func() {
				if d.market.keys["host-key-1"].refused == "" || (d.market.keys["host-key-by-hand"].refused != "") != (test.given != "") {
					t.Error("the keys are not void that should be")
				}
			})
		})
	}
}

// What nobody can read any more is no reason to stay signed in.
func TestSignOutLost(t *testing.T) {
	for _, name := range []string{"credentials.age", "credentials.salt", "key-place.json"} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			w := d.enrolled()
			if err := os.WriteFile(filepath.Join(d.dir, name), []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := w.SignOut(t.Context())
			if want := (account.SignedOut{Why: "The kept host key could not be read any more, so it could not be made void."}); err != nil || got != want {
				t.Errorf("got %+v, %v", got, err)
			}
			if i := w.Info(); i.SignedIn || w.key() != "" {
				t.Errorf("shows %+v", i)
			}
		})
	}
}

// Whoever cannot sign out for what is kept here is told what the marketplace has done all the same.
func TestSignOutUnremoved(t *testing.T) {
	for name, down := range map[string]bool{
		"The marketplace has made the host key void, but what is kept here could not be removed: ":                                    false,
		"The marketplace has made no key void (The marketplace says: No, closed_today), but what is kept here could not be removed: ": true,
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			w := d.enrolled()
			d.market.with(func() { d.market.down = down })
			// Not even root can remove it.
			blocked := filepath.Join(d.dir, "credentials.age.new")
			if err := os.MkdirAll(filepath.Join(blocked, "in-the-way"), 0o700); err != nil {
				t.Fatal(err)
			}
			got, err := w.SignOut(t.Context())
			if err == nil || got.Revoked == down || !strings.HasPrefix(err.Error(), name) || !strings.Contains(err.Error(), blocked) {
				t.Errorf("got %+v, %v", got, err)
			}
			if i := w.Info(); !i.SignedIn || i.KeyID != "k-1" || w.key() != "host-key-1" {
				t.Errorf("shows %+v", i)
			}
			if err := os.RemoveAll(blocked); err != nil {
				t.Fatal(err)
			}
			d.market.with(func() { d.market.down = false })
			if got, err := w.SignOut(t.Context()); err != nil || !got.Revoked || w.key() != "" {
				t.Errorf("again: %+v, %v", got, err)
			}
		})
	}
}

// A key that is gone is gone, whatever is still written down of it.
func TestSignOutUnwritten(t *testing.T) {
	d := newDesk(t)
	w := d.enrolled()
	if err := os.MkdirAll(filepath.Join(d.dir, "account.json.new", "in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := w.SignOut(t.Context()); err != nil || !got.Revoked || w.key() != "" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// The same installation keeps its node, whoever signs it in when.
func TestInstallID(t *testing.T) {
	d := newDesk(t)
	w := d.enrolled()
	var first any
	d.market.with(func() { first = d.market.told["install_id"] })
	if _, err := w.SignOut(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.leave()
	d.enrolled()
	d.market.with(func() {
		if second := d.market.told["install_id"]; second != first || first == "" || d.market.told["replace_node_id"] != nil {
			t.Errorf("first %v, then %v", first, d.market.told)
		}
	})
	if err := os.WriteFile(filepath.Join(d.dir, "account.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A damaged account.json costs the install id, not the node.
	w = d.open()
	w.await(func(i account.Info) bool {
		return i.KeyID == "k-2" && i.NodeID == "node-1" && i.Owner == "ada@example.com"
	})
	if err := w.Enrol(t.Context(), secret.New("dce_token")); err != nil {
		t.Fatal(err)
	}
	d.market.with(func() {
		if third := d.market.told["install_id"]; third == first || d.market.told["replace_node_id"] != "node-1" {
			t.Errorf("then %v", d.market.told)
		}
	})
}

// What belongs to a key that is kept here is asked for where it is not known, and of no other key.
func TestUnknownKeys(t *testing.T) {
	d := newDesk(t)
	d.market.keys["host-key-h"] = &hostKey{id: "k-h", node: "node-h"}
	w := d.open()
	if err := w.Store(t.Context(), secret.New("host-key-h")); err != nil {
		t.Fatal(err)
	}
	w.leave()
	w = d.open()
	w.await(func(i account.Info) bool { return i.NodeID == "node-h" })
	w.leave()
	d.given = "host-key-h2"
	w = d.open()
	w.await(func(i account.Info) bool { return i.SignedIn })
	time.Sleep(100 * time.Millisecond) // in which it would ask
	w.leave()
	if n := d.market.count("GET /v1/hosts/self"); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestRotate(t *testing.T) {
	d := newDesk(t)
	w := d.enrolled()
	if err := w.RotateKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := account.Info{SignedIn: true, Owner: "ada@example.com", NodeID: "node-1", KeyID: "k-2", CanSignIn: true}
	if diff := cmp.Diff(want, w.Info(), anySource); diff != "" || w.key() != "host-key-2" {
		t.Errorf("key %q; (-want +got):\n%s", w.key(), diff)
	}
	// By hand there is nothing but the key: the marketplace knows the rest.
	if err := w.Store(t.Context(), secret.New("host-key-2")); err != nil {
		t.Fatal(err)
	}
	if i := w.Info(); !i.SignedIn || i.NodeID != "" || i.KeyID != "" {
		t.Errorf("by hand: %+v", i)
	}
	if err := w.RotateKey(t.Context()); err != nil || w.key() != "host-key-3" || w.Info().NodeID != "node-1" {
		t.Errorf("by hand: %v, key %q, %+v", err, w.key(), w.Info())
	}

	d.market.with(func() { d.market.keys["host-key-3"].refused = "key_revoked" })
	if err := w.RotateKey(t.Context()); err == nil || w.key() != "host-key-3" {
		t.Errorf("a revoked key: %v, now %q", err, w.key())
	}
	w.leave()
	d.given = "host-key-by-hand"
	w = d.open()
	if err := w.RotateKey(t.Context()); err == nil || !strings.Contains(err.Error(), "environment (HOST_API_KEY)") {
		t.Errorf("a key that is not ours: %v", err)
	}
	if n := d.market.count("POST /v1/hosts/node-1/keys"); n != 2 {
		t.Errorf("exchanged %d times", n)
	}
}

// A key that is on its way is not given up: the one before is good for minutes only.
func TestRotateInterrupted(t *testing.T) {
	t.Run("nobody waits any more", func(t *testing.T) {
		d := newDesk(t)
		w := d.enrolled()
		ctx, cancel := context.WithCancel(t.Context())
		d.market.with(func() {
			d.market.rotates = func() bool {
				cancel()
				time.Sleep(50 * time.Millisecond) // in which a client that gives up would do so
				return false
			}
		})
		if err := w.RotateKey(ctx); err != nil || w.key() != "host-key-2" {
			t.Errorf("got %v, key %q", err, w.key())
		}
	})
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("the answer is lost, restarted %t", restarted), func(t *testing.T) {
			d := newDesk(t)
			d.enrolled().leave()
			if !restarted {
				d.again = 20 * time.Millisecond
			}
			w := d.open()
			d.market.with(func() {
				d.market.rotates = func() bool { d.market.rotates = nil; return true }
			})
			if err := w.RotateKey(t.Context()); err == nil {
				t.Error("no error")
			}
			if restarted {
				w.leave()
				w = d.open()
			}
			w.await(func(i account.Info) bool { return i.KeyID == "k-3" })
			if w.key() != "host-key-3" {
				t.Errorf("key %q", w.key())
			}
			if text, err := os.ReadFile(filepath.Join(d.dir, "account.json")); err != nil || strings.Contains(string(text), "exchange_began") {
				t.Errorf("account.json (%v): %s", err, text)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		d := newDesk(t)
		w := d.enrolled()
		d.market.with(func() { d.market.keys["host-key-1"].fixed = true })
		if err := w.RotateKey(t.Context()); err == nil || w.key() != "host-key-1" {
			t.Errorf("got %v, key %q", err, w.key())
		}
		if text, err := os.ReadFile(filepath.Join(d.dir, "account.json")); err != nil || strings.Contains(string(text), "exchange_began") {
			t.Errorf("account.json (%v): %s", err, text)
		}
	})
}

// A key is exchanged before it expires, and when the backend says that it has.
func TestExpiry(t *testing.T) {
	d := newDesk(t)
	d.market.expires = 6 * 24 * time.Hour
	d.enrolled().leave()
	d.market.with(func() { d.market.expires = 8 * 24 * time.Hour })
	w := d.open() // looks at its start
	w.await(func(i account.Info) bool { return i.KeyID == "k-2" })
	w.leave()
	w = d.open()
	w.KeyJudged("")
	w.KeyJudged("key_revoked")
	for start := time.Now(); rejected(t, d.dir) != "key_revoked"; time.Sleep(time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatal("the verdict is not written down")
		}
	}
	if w.key() != "host-key-2" {
		t.Errorf("exchanged too early: %+v", w.Info())
	}
	d.market.with(func() { d.market.keys["host-key-2"].refused = "key_expired" })
	w.KeyJudged("key_expired")
	w.await(func(i account.Info) bool { return i.KeyID == "k-3" })
	if code := rejected(t, d.dir); code != "" {
		t.Errorf("the new key is rejected with %q", code)
	}
}

func rejected(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "account.json"))
	if err != nil {
		t.Fatal(err)
	}
	var record struct{ Rejected string }
	if err := json.Unmarshal(text, &record); err != nil {
		t.Fatal(err)
	}
	return record.Rejected
}

// What cannot be read is not taken for signed out.
func TestUnreadable(t *testing.T) {
	d := newDesk(t)
	file := filepath.Join(t.TempDir(), "key")
	open := func() *account.Account {
		t.Helper()
		a, err := account.Open(account.Options{Keys: keyring.New(keyring.Options{File: file, StateDir: d.dir}), StateDir: d.dir})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := open()
	if _, err := a.Key(t.Context()); err == nil || a.Info().SignedIn {
		t.Errorf("no such file: %v, %+v", err, a.Info())
	}
	if err := os.WriteFile(file, []byte("host-key-1"), 0o644); err != nil {
		t.Fatal(err)
	}
	a = open()
	if _, err := a.Key(t.Context()); err == nil || !a.Info().SignedIn {
		t.Errorf("a file that others can read: %v, %+v", err, a.Info())
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if key, err := a.Key(t.Context()); err != nil || key.Reveal() != "host-key-1" {
		t.Errorf("a file for its owner: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Key(gone); err == nil || !a.Info().SignedIn {
		t.Errorf("nobody waited: %v, %+v", err, a.Info())
	}
}

// What another process has signed in shows once the key is looked for.
func TestAnotherProcess(t *testing.T) {
	d := newDesk(t)
	w := d.open()
	d.enrolled()
	if w.key() != "host-key-1" || w.Info().NodeID != "node-1" {
		t.Errorf("key %q, %+v", w.key(), w.Info())
	}
}

// A kept key that cannot be read is still the one of the last sign-in.
func TestKeptAndUnreadable(t *testing.T) {
	for _, name := range []string{"credentials.age", "key-place.json"} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			w := d.enrolled()
			if err := os.Chmod(filepath.Join(d.dir, name), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Key(t.Context()); err == nil {
				t.Error("it is read")
			}
			want := account.Info{SignedIn: true, Owner: "ada@example.com", NodeID: "node-1", KeyID: "k-1", CanSignIn: true}
			if diff := cmp.Diff(want, w.Info(), anySource); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A key that comes from elsewhere goes before the one signed in for, which is said.
func TestOverruled(t *testing.T) {
	d := newDesk(t)
	d.given = "host-key-by-hand"
	w := d.enrolled()
	i := w.Info()
	if i.KeySource != "environment (HOST_API_KEY)" || i.NodeID != "" || !strings.Contains(i.Problem, "the one from environment (HOST_API_KEY) goes before it") {
		t.Errorf("got %+v", i)
	}
	if w.key() != "host-key-by-hand" {
		t.Errorf("key %q", w.key())
	}
}
