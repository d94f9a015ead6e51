package signin

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

func agrees(int) string { return "" }

func TestDevice(t *testing.T) {
	for name, test := range map[string]struct {
		poll func(try int) string
		took time.Duration // at least
	}{
		"at once":     {agrees, time.Second},
		"after a bit": {func(try int) string { return []string{"authorization_pending", ""}[try-1] }, 2 * time.Second},
		"too fast":    {func(try int) string { return []string{"slow_down", ""}[try-1] }, 7 * time.Second},
		"away":        {func(try int) string { return []string{"temporarily_unavailable", ""}[try-1] }, 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t, script{poll: test.poll})
			var log bytes.Buffer
			c := m.client(t, func(o *Options) {
				o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			begun, shown := time.Now(), Prompt{}
			got, err := c.Device(t.Context(), someHost(), func(p Prompt) { shown = p })
			if err != nil {
				t.Fatal(err)
			}
			if got.Key.Reveal() != hostKey || got.Owner != "ada@example.com" {
				t.Errorf("got %+v", got)
			}
			if shown.URL != m.URL+"/activate?user_code=WDJB-MJHT" || shown.UserCode != "WDJB-MJHT" || time.Until(shown.ExpiresAt) < 9*time.Minute || time.Until(shown.ExpiresAt) > 10*time.Minute {
				t.Errorf("it showed %+v", shown)
			}
			if took := time.Since(begun); took < test.took {
				t.Errorf("it took %s, want %s at least: it polls too fast", took, test.took)
			}
			if calls := m.called(); len(calls) != 1 || calls[0].bearer != accessToken {
				t.Errorf("the API was called: %+v", calls)
			}
			for _, canary := range []string{accessToken, hostKey, "canary-device-code"} {
				if strings.Contains(log.String(), canary) {
					t.Errorf("the log shows %q", canary)
				}
			}
		})
	}
}

// TestDeviceWithoutAnIDToken: it would serve display alone.
func TestDeviceWithoutAnIDToken(t *testing.T) {
	m := open(t, script{poll: agrees, token: func(a map[string]any) { delete(a, "id_token") }})
	if _, err := m.client(t, nil).Device(t.Context(), someHost(), func(Prompt) {}); err != nil {
		t.Error(err)
	}
}

func TestNoDeviceGrant(t *testing.T) {
	for name, do := range map[string]script{
		"not offered":       {discovery: func(d map[string]any) { delete(d, "device_authorization_endpoint") }},
		"not to this agent": {device: func(a map[string]any) { a["error"] = "unauthorized_client" }},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, do).client(t, nil).Device(t.Context(), someHost(), func(Prompt) { t.Error("it shows") })
			if !errors.Is(err, ErrNoDeviceGrant) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDeviceRefused(t *testing.T) {
	set := func(name string, value any) script {
		return script{poll: agrees, device: func(a map[string]any) { a[name] = value }}
	}
	for name, test := range map[string]struct {
		do    script
		want  string
		shows bool
	}{
		"wrong client":     {set("error", "invalid_client"), "(invalid_client); it does not know this agent well enough: tell the marketplace.", false},
		"over http":        {set("verification_uri", "http://login.example/"), "verification_uri http://login.example/: not an https:// address", false},
		"complete by http": {set("verification_uri_complete", "http://login.example/?c"), "verification_uri_complete", false},
		"by script":        {set("verification_uri_complete", "javascript:alert(1)"), "verification_uri_complete", false},
		"no address":       {set("verification_uri", ""), "verification_uri is missing", false},
		"no user code":     {set("user_code", ""), "its code", false},
		"odd user code":    {set("user_code", "AB\x1b[2J"), "its code", false},
		"long user code":   {set("user_code", strings.Repeat("A", 65)), "its code", false},
		"no device code":   {set("device_code", ""), "its code", false},
		"nothing": {script{
			discovery: func(d map[string]any) { d["device_authorization_endpoint"] = d["issuer"].(string) + "/v1/nothing" },
			hosts:     says(200, "application/json", "null\n"),
		}, "answers with nothing", false},

		"declined":     {script{poll: func(int) string { return "access_denied" }}, "declined on the other device", true},
		"expired":      {script{poll: func(int) string { return "expired_token" }}, "expired before anybody confirmed it", true},
		"nobody comes": {script{poll: func(int) string { return "authorization_pending" }, device: func(a map[string]any) { a["expires_in"] = 1 }}, "expired before anybody confirmed it", true},
		"over already": {script{poll: agrees, device: func(a map[string]any) { a["expires_in"] = -5 }}, "expired before anybody confirmed it", true},
		"not known":    {script{poll: func(int) string { return "invalid_grant" }}, "invalid_grant", true},
		"other signer": {script{poll: agrees, sign: hs256}, "does not hold", true},
		"may not host": {script{poll: agrees, hosts: refuses(403, "host_suspended", "no")}, "The marketplace says: no.", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shown := false
			got, err := open(t, test.do).client(t, nil).Device(t.Context(), someHost(), func(Prompt) { shown = true })
			if err == nil || !strings.Contains(err.Error(), test.want) || !got.Key.Empty() {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if shown != test.shows {
				t.Errorf("shown: %v", shown)
			}
		})
	}
}

// TestTimesOfACode: whatever the provider says, polling neither hurries nor sleeps, and ends.
func TestTimesOfACode(t *testing.T) {
	m := open(t, script{})
	c := m.client(t, nil)
	c.times.poll = 5 * time.Second
	p, err := c.discover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		interval, wantInterval int64
		expires                time.Time
		wantLife               time.Duration
	}{
		"none given": {0, 5, time.Time{}, 10 * time.Minute},
		"hasty":      {1, 5, time.Now().Add(time.Minute), time.Minute},
		"negative":   {-1, 5, time.Now().Add(time.Minute), time.Minute},
		"patient":    {30, 30, time.Now().Add(time.Minute), time.Minute},
		"endless":    {1 << 62, slowest, time.Now().Add(1000 * time.Hour), maxLife},
	} {
		t.Run(name, func(t *testing.T) {
			code := &oauth2.DeviceAuthResponse{DeviceCode: "d", UserCode: "u", VerificationURI: m.URL, Interval: test.interval, Expiry: test.expires}
			prompt, err := c.ask(p, code)
			if err != nil {
				t.Fatal(err)
			}
			if code.Interval != test.wantInterval {
				t.Errorf("asks every %d s, want %d s", code.Interval, test.wantInterval)
			}
			if left := time.Until(prompt.ExpiresAt); left > test.wantLife || left < test.wantLife-10*time.Second || prompt.ExpiresAt != code.Expiry {
				t.Errorf("lives for %s, want %s", left, test.wantLife)
			}
		})
	}
}

func TestCancelDevice(t *testing.T) {
	m := open(t, script{poll: func(int) string { return "authorization_pending" }})
	ctx, cancel := context.WithCancel(t.Context())
	begun := time.Now()
	_, err := m.client(t, nil).Device(ctx, someHost(), func(Prompt) { cancel() })
	if !errors.Is(err, context.Canceled) || time.Since(begun) > 5*time.Second {
		t.Errorf("got %v after %s", err, time.Since(begun))
	}
}

// TestCancelWhileTheProviderIsSilent: the request for a code ends with its context too.
func TestCancelWhileTheProviderIsSilent(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	m := open(t, script{device: func(map[string]any) { time.Sleep(2 * time.Second) }})
	begun := time.Now()
	if _, err := m.client(t, nil).Device(ctx, someHost(), func(Prompt) {}); err == nil || time.Since(begun) > time.Second {
		t.Errorf("got %v after %s", err, time.Since(begun))
	}
}
