package identity

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/distributedcompute/host-agent/sandbox/ca"
)

// What the provider's own key has signed is no access token unless every claim says so.
func TestVerify(t *testing.T) {
	authority, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(t.Context(), Options{CA: authority})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	other, err := Start(t.Context(), Options{CA: authority})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })

	in := func(d time.Duration) *jwt.NumericDate { return jwt.NewNumericDate(time.Now().Add(d)) }
	for _, tt := range []struct {
		name   string
		kind   string
		signer *Provider
		change func(*claims)
		want   string // part of the error; "": good
	}{
		{"good", "at+jwt", p, func(*claims) {}, ""},
		{"long form of the type", "application/at+jwt", p, func(*claims) {}, ""},
		{"a clock that is a little ahead", "at+jwt", p, func(c *claims) { c.NotBefore = in(3 * time.Second) }, ""},
		{"a session's", "JWT", p, func(*claims) {}, `type "JWT"`},
		{"no type", "", p, func(*claims) {}, `type ""`},
		{"another key", "at+jwt", other, func(*claims) {}, "is not known"},
		{"another issuer", "at+jwt", p, func(c *claims) { c.Issuer = other.issuer }, "issuer"},
		{"no issuer", "at+jwt", p, func(c *claims) { c.Issuer = "" }, "issuer"},
		{"expired", "at+jwt", p, func(c *claims) { c.Expiry = in(-6 * time.Second) }, "expired"},
		{"without an end", "at+jwt", p, func(c *claims) { c.Expiry = nil }, "no end"},
		{"not yet", "at+jwt", p, func(c *claims) { c.NotBefore = in(10 * time.Second) }, "not valid yet"},
		{"another client", "at+jwt", p, func(c *claims) { c.ClientID = "someone" }, "another application's"},
		{"no client", "at+jwt", p, func(c *claims) { c.ClientID = "" }, "another application's"},
		{"a machine's", "at+jwt", p, func(c *claims) { c.Subject = "mch_1" }, "no person's"},
		{"a stranger's", "at+jwt", p, func(c *claims) { c.Subject = "user_stranger" }, "user is not known"},
		{"less scope", "at+jwt", p, func(c *claims) { c.Scope = "openid host:enrollment" }, "scope"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := claims{
				Claims: jwt.Claims{
					Issuer: p.issuer, Subject: p.users[0].ID, ID: "oat_1",
					IssuedAt: in(0), NotBefore: in(0), Expiry: in(time.Hour),
				},
				ClientID: clientID,
				Scope:    "openid host:enroll",
			}
			tt.change(&c)
			text, err := tt.signer.sign(tt.kind, c)
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.Verify(text)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestDevicesKeepAPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{provider: &Provider{options: Options{PollInterval: 5 * time.Second}}, requests: map[string]*request{}}
		if err := s.StoreDeviceAuthorization(t.Context(), clientID, "device", "CODE", time.Now().Add(codeLifetime), nil); err != nil {
			t.Fatal(err)
		}
		// slow reports whether the device is told to slow down when it asks after that time.
		slow := func(after time.Duration) bool {
			time.Sleep(after)
			_, err := s.GetDeviceAuthorizatonState(t.Context(), clientID, "device")
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			return err != nil
		}
		for i, step := range []struct {
			after time.Duration
			slow  bool
		}{
			{0, false},
			{5 * time.Second, false},
			{4600 * time.Millisecond, false}, // the network was quicker than last time
			{4 * time.Second, true},
			{5 * time.Second, true}, // the pace is 10 s now
			{15 * time.Second, false},
		} {
			if got := slow(step.after); got != step.slow {
				t.Errorf("step %d: slow_down is %t", i, got)
			}
		}
		time.Sleep(codeLifetime)
		state, err := s.GetDeviceAuthorizatonState(t.Context(), clientID, "device")
		if err != nil || !time.Now().After(state.Expires) {
			t.Errorf("after its time the code is %+v, %v", state, err)
		}
	})
}
