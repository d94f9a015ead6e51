package identity_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/sandbox/identity"
)

func TestDiscovery(t *testing.T) {
	for _, device := range []bool{false, true} {
		a := start(t, identity.Options{Device: device})
		var documents [2]map[string]any
		for i, path := range []string{"openid-configuration", "oauth-authorization-server"} {
			if status := a.get(a.Issuer()+"/.well-known/"+path, "", &documents[i]); status != http.StatusOK {
				t.Errorf("%s is answered %d", path, status)
			}
		}
		if diff := cmp.Diff(documents[0], documents[1]); diff != "" {
			t.Errorf("the two documents differ: %s", diff)
		}
		for key, want := range map[string]string{
			"issuer": "", "authorization_endpoint": "/oauth/authorize", "token_endpoint": "/oauth/token", "userinfo_endpoint": "/oauth/userinfo",
			"revocation_endpoint": "/oauth/token/revoke", "jwks_uri": "/.well-known/jwks.json",
		} {
			if got := documents[0][key]; got != a.Issuer()+want {
				t.Errorf("%s = %v, want the path %q", key, got, want)
			}
		}
		if _, has := documents[0]["device_authorization_endpoint"]; has != device {
			t.Errorf("with Device %t the device endpoint is named: %t", device, has)
		}
		if status := a.post("/oauth/device_authorization", url.Values{"client_id": {a.ClientID()}, "scope": {"openid"}}, nil); (status == http.StatusOK) != device {
			t.Errorf("with Device %t a device is answered %d", device, status)
		}
	}
}

func TestSignIn(t *testing.T) {
	a := start(t, identity.Options{Users: []identity.User{{Email: "ada@example.com", Name: "Ada", Password: secret.New("engine")}}})
	got := a.signIn()
	if got.TokenType != "Bearer" || got.Refresh != "" || got.ExpiresIn < 86390 || got.Scope != "openid profile email host:enroll" {
		t.Errorf("answer = %+v", got)
	}
	user, err := a.Verify(got.AccessToken)
	if err != nil || user.Email != "ada@example.com" || !strings.HasPrefix(user.ID, "user_") {
		t.Errorf("the access token is %v's, %v", user, err)
	}
	var info map[string]any
	if status := a.get(a.Issuer()+"/oauth/userinfo", got.AccessToken, &info); status != http.StatusOK || info["email"] != "ada@example.com" || info["sub"] != user.ID {
		t.Errorf("userinfo = %d %v", status, info)
	}
	if status := a.get(a.Issuer()+"/oauth/userinfo", got.IDToken, nil); status == http.StatusOK {
		t.Error("an ID token was taken for an access token")
	}
	// A revoked token is nobody's any more, but cannot be recalled from those who verify it offline.
	if status := a.post("/oauth/token/revoke", url.Values{"token": {got.AccessToken}, "client_id": {a.ClientID()}}, nil); status != http.StatusOK {
		t.Errorf("revoking is answered %d", status)
	}
	if status := a.get(a.Issuer()+"/oauth/userinfo", got.AccessToken, new(string)); status == http.StatusOK {
		t.Error("a revoked token tells who its user is")
	}
	if _, err := a.Verify(got.AccessToken); err != nil {
		t.Errorf("verified offline, a revoked token gave %v", err)
	}
}

// As in Clerk, a person who cannot come back to the application sees why, and the application hears nothing.
func TestRequestsThatEndInTheBrowser(t *testing.T) {
	a := start(t, identity.Options{})
	port := a.redirect[len("http://127.0.0.1"):]
	for _, tt := range []struct {
		name, key string
		values    []string
		want      string
	}{
		{"localhost", "redirect_uri", []string{"http://localhost" + port}, "does not match"},
		{"IPv6", "redirect_uri", []string{"http://[::1]" + port}, "does not match"},
		{"another loopback address", "redirect_uri", []string{"http://127.0.0.2" + port}, "does not match"},
		{"https", "redirect_uri", []string{"https://127.0.0.1" + port}, "does not match"},
		{"another path", "redirect_uri", []string{a.redirect + "/x"}, "does not match"},
		{"slash at the end", "redirect_uri", []string{a.redirect + "/"}, "does not match"},
		{"query", "redirect_uri", []string{a.redirect + "?x=1"}, "does not match"},
		{"empty query", "redirect_uri", []string{a.redirect + "?"}, "does not match"},
		{"fragment", "redirect_uri", []string{a.redirect + "#x"}, "does not match"},
		{"user", "redirect_uri", []string{"http://u@127.0.0.1" + port}, "does not match"},
		{"elsewhere", "redirect_uri", []string{"https://example.com/callback"}, "does not match"},
		{"none", "redirect_uri", nil, "does not match"},
		{"two redirects", "redirect_uri", []string{a.redirect, "https://example.com/callback"}, "twice"},
		{"two states", "state", []string{"state-of-the-test", "another-state"}, "twice"},
		{"unknown client", "client_id", []string{"someone"}, "no application"},
		{"no client", "client_id", nil, "no application"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ask := a.ask()
			ask[tt.key] = tt.values
			var page string
			status := a.get(a.address(ask), "", &page)
			if status != http.StatusBadRequest || !strings.Contains(page, tt.want) || !strings.Contains(page, "sandbox") {
				t.Errorf("answered %d %s", status, page)
			}
			if call := a.called(); call != nil {
				t.Errorf("the application heard %v", call)
			}
		})
	}
}

func TestRequestsThatAreSentBack(t *testing.T) {
	a := start(t, identity.Options{})
	for _, tt := range []struct {
		name, key, value string
		want             string // error; "": taken
	}{
		{"good", "prompt", "login consent", ""},
		{"no PKCE", "code_challenge", "", "invalid_request"},
		{"short challenge", "code_challenge", "short", "invalid_request"},
		{"plain", "code_challenge_method", "plain", "invalid_request"},
		{"no method", "code_challenge_method", "", "invalid_request"},
		{"short state", "state", "1234567", "invalid_state"},
		{"no state", "state", "", "invalid_state"},
		{"unknown prompt", "prompt", "select_account", "invalid_request"},
		{"none and more", "prompt", "none login", "invalid_request"},
		{"silently", "prompt", "none", "login_required"},
		{"implicit", "response_type", "token", "unsupported_response_type"},
		{"ID token", "response_type", "id_token", "unsupported_response_type"},
		{"fragment", "response_mode", "fragment", "unsupported_response_mode"},
		{"unknown scope", "scope", "openid org:admin", "invalid_scope"},
		{"refresh tokens", "scope", "openid offline_access", "invalid_scope"},
		{"no scope", "scope", "", "invalid_scope"},
		{"request object", "request", "e30.e30.", "request_not_supported"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ask := a.ask()
			ask.Set(tt.key, tt.value)
			var to string
			status := a.get(a.address(ask), "", &to)
			location, _, _ := strings.Cut(to, "\n")
			location, _, _ = strings.Cut(location, "<")
			back, err := url.Parse(location)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" {
				if status != http.StatusFound || back.Path != "/sign-in" {
					t.Errorf("sent with %d to %s", status, to)
				}
				return
			}
			query := back.Query()
			if !strings.HasPrefix(location, a.redirect+"?") || query.Get("error") != tt.want || query.Get("state") != ask.Get("state") || query.Has("code") {
				t.Errorf("sent with %d to %s, want error %s", status, to, tt.want)
			}
		})
	}
}

func TestPerson(t *testing.T) {
	a := start(t, identity.Options{})
	owner := a.Users()[0]
	if owner.Email != identity.DefaultEmail || len(owner.Password.Reveal()) < 10 {
		t.Errorf("the user made without being asked for is %q with %d characters of password", owner.Email, len(owner.Password.Reveal()))
	}
	for name, who := range map[string]identity.User{
		"wrong password": {Email: owner.Email, Password: secret.New("guess")},
		"no password":    {Email: owner.Email},
		"nobody":         {Email: "eve@example.com", Password: owner.Password},
	} {
		page, err := a.Visit(t.Context(), a.address(a.ask()), who, true)
		if err != nil || !strings.Contains(page, "no account with this e-mail address and password") || a.called() != nil {
			t.Errorf("%s: %v, %s", name, err, page)
		}
	}
	page, err := a.Visit(t.Context(), a.address(a.ask()), owner, false)
	call := a.called()
	if err != nil || page != "back at the agent" || call.Get("error") != "access_denied" || call.Get("state") != "state-of-the-test" {
		t.Errorf("denied: %v, the person sees %q, the redirect got %v", err, page, call)
	}
}

// The pages cannot be used out of their order, twice, or without knowing which request they are for.
func TestPages(t *testing.T) {
	a := start(t, identity.Options{})
	owner := a.Users()[0]
	var to string
	a.get(a.address(a.ask()), "", &to)
	id, _, _ := strings.Cut(to[len("/sign-in?request="):], `<`)
	id = strings.TrimSpace(id)
	password := url.Values{"request": {id}, "email": {owner.Email}, "password": {owner.Password.Reveal()}}
	for _, tt := range []struct {
		name, path string
		form       url.Values // nil: GET
		want       int
		says       string
	}{
		{"sign-in of nobody's request", "/sign-in?request=guess", nil, 404, "Start it again"},
		{"sign-in", "/sign-in?request=" + id, nil, 200, "DistributedCompute host agent"},
		{"consent page before signing in", "/consent?request=" + id, nil, 403, "Sign in first"},
		{"consent before signing in", "/consent", url.Values{"request": {id}, "decision": {"allow"}}, 403, "Sign in first"},
		{"callback before consent", "/oauth/authorize/callback?id=" + id, nil, 302, "interaction_required"},
		{"signing in", "/sign-in", password, 303, "/consent"},
		{"consent page", "/consent?request=" + id, nil, 200, "add this machine to your hosts"},
		{"neither", "/consent", url.Values{"request": {id}, "decision": {"maybe"}}, 400, "Allow or Deny"},
		{"another's request", "/consent", url.Values{"request": {"guess"}, "decision": {"allow"}}, 404, "Start it again"},
		{"consent", "/consent", url.Values{"request": {id}, "decision": {"allow"}}, 303, "/oauth/authorize/callback"},
		{"consent again", "/consent", url.Values{"request": {id}, "decision": {"deny"}}, 409, "answered already"},
		{"sign-in again", "/sign-in", password, 409, "answered already"},
		{"callback", "/oauth/authorize/callback?id=" + id, nil, 302, "code="},
		{"callback again", "/oauth/authorize/callback?id=" + id, nil, 302, "error="},
		{"the library's own paths", "/end_session", nil, 404, ""},
		{"introspection", "/oauth/introspect", url.Values{"token": {"t"}}, 404, ""},
	} {
		var page string
		var status int
		if tt.form == nil {
			status = a.get(a.Issuer()+tt.path, "", &page)
		} else {
			status = a.post(tt.path, tt.form, &page)
		}
		if status != tt.want || !strings.Contains(page, tt.says) {
			t.Errorf("%s: answered %d %s", tt.name, status, page)
		}
	}
}

func TestCodes(t *testing.T) {
	a := start(t, identity.Options{})
	for _, tt := range []struct {
		name   string
		change func(url.Values)
		want   string // error
	}{
		{"wrong verifier", func(f url.Values) { f.Set("code_verifier", strings.Repeat("x", 43)) }, "invalid_grant"},
		{"no verifier", func(f url.Values) { f.Del("code_verifier") }, "invalid_request"},
		{"another redirect", func(f url.Values) { f.Set("redirect_uri", strings.Replace(a.redirect, "127.0.0.1", "localhost", 1)) }, "invalid_grant"},
		{"another client", func(f url.Values) { f.Set("client_id", "someone") }, "invalid_client"},
		{"another code", func(f url.Values) { f.Set("code", "guess") }, "invalid_grant"},
		{"refresh", func(f url.Values) { f.Set("grant_type", "refresh_token") }, "unsupported_grant_type"},
		{"a grant of the library's", func(f url.Values) { f.Set("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer") }, "unsupported_grant_type"},
		{"device, which is off", func(f url.Values) { f.Set("grant_type", "urn:ietf:params:oauth:grant-type:device_code") }, "unsupported_grant_type"},
		{"twice in the form", func(f url.Values) { f.Add("code", "guess") }, "invalid_request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			form := a.exchange(a.code(a.ask()))
			tt.change(form)
			if got := a.redeem(form); got.Error != tt.want || got.AccessToken != "" {
				t.Errorf("answered %+v, want %s", got, tt.want)
			}
		})
	}
	t.Run("replayed", func(t *testing.T) {
		form := a.exchange(a.code(a.ask()))
		if got := a.redeem(form); got.Status != http.StatusOK {
			t.Fatalf("answered %+v", got)
		}
		if got := a.redeem(form); got.Error != "invalid_grant" {
			t.Errorf("a code was good twice: %+v", got)
		}
	})
	t.Run("tried with a wrong verifier before", func(t *testing.T) {
		form := a.exchange(a.code(a.ask()))
		wrong := a.exchange(form.Get("code"))
		wrong.Set("code_verifier", strings.Repeat("x", 43))
		a.redeem(wrong)
		if got := a.redeem(form); got.Error != "invalid_grant" {
			t.Errorf("a code outlived a wrong try: %+v", got)
		}
	})
}

func TestFaults(t *testing.T) {
	a := start(t, identity.Options{})
	a.Fail(identity.Denying)
	if page, err := a.Visit(t.Context(), a.address(a.ask()), a.Users()[0], true); err != nil || a.called().Get("error") != "access_denied" {
		t.Errorf("denying: %v, %s", err, page)
	}
	a.Fail(identity.Healthy)
	form := a.exchange(a.code(a.ask()))
	a.Fail(identity.ExpiringCode)
	if got := a.redeem(form); got.Error != "invalid_grant" {
		t.Errorf("an expired code was answered %+v", got)
	}
	a.Fail(identity.Down)
	if status := a.get(a.Issuer()+"/.well-known/openid-configuration", "", new(string)); status != http.StatusServiceUnavailable {
		t.Errorf("down, it answers %d", status)
	}
	a.Fail(identity.Healthy)
	a.signIn()
}

func TestVerifyNeedsTheScope(t *testing.T) {
	a := start(t, identity.Options{})
	ask := a.ask()
	ask.Set("scope", "openid profile email")
	got := a.redeem(a.exchange(a.code(ask)))
	if _, err := a.Verify(got.AccessToken); !errors.Is(err, identity.ErrScope) {
		t.Errorf("without the scope: %v", err)
	}
	for name, bad := range map[string]string{"ID token": got.IDToken, "nothing": "", "junk": "a.b.c", "cut": got.AccessToken[:len(got.AccessToken)-8]} {
		if user, err := a.Verify(bad); err == nil || errors.Is(err, identity.ErrScope) {
			t.Errorf("%s is taken for an access token of %v: %v", name, user, err)
		}
	}
}

// device is the answer to a device authorization request.
type device struct {
	DeviceCode string `json:"device_code"`
	UserCode   string `json:"user_code"`
	URI        string `json:"verification_uri"`
	Complete   string `json:"verification_uri_complete"`
	ExpiresIn  int    `json:"expires_in"`
	Interval   int    `json:"interval"`
	Error      string `json:"error"`
}

func (a *application) deviceCode() (got device) {
	a.t.Helper()
	form := url.Values{"client_id": {a.ClientID()}, "scope": {"openid profile email host:enroll"}}
	if status := a.post("/oauth/device_authorization", form, &got); status != http.StatusOK {
		a.t.Fatalf("a device is answered %d %+v", status, got)
	}
	return got
}

func (a *application) poll(d device) tokens {
	a.t.Helper()
	return a.redeem(url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {a.ClientID()}, "device_code": {d.DeviceCode}})
}

func TestDevice(t *testing.T) {
	a := start(t, identity.Options{Device: true})
	d := a.deviceCode()
	if d.Interval != 5 || d.ExpiresIn != 600 || d.URI != a.Issuer()+"/device" || d.Complete != d.URI+"?user_code="+d.UserCode || len(d.UserCode) != 9 {
		t.Errorf("answer = %+v", d)
	}
	if got := a.poll(d); got.Error != "authorization_pending" {
		t.Errorf("the first poll is answered %+v", got)
	}
	if got := a.poll(d); got.Error != "slow_down" {
		t.Errorf("a second one at once is answered %+v", got)
	}

	allowed := a.deviceCode()
	page, err := a.Visit(t.Context(), allowed.Complete, a.Users()[0], true)
	if err != nil || !strings.Contains(page, "Allowed") {
		t.Errorf("%v, the person sees %s", err, page)
	}
	got := a.poll(allowed)
	if user, err := a.Verify(got.AccessToken); err != nil || user.ID != a.Users()[0].ID || got.IDToken == "" {
		t.Errorf("the device got %+v of %v, %v", got, user, err)
	}
	if got := a.poll(allowed); got.Error != "expired_token" {
		t.Errorf("a device code was good twice: %+v", got)
	}

	denied := a.deviceCode()
	page, err = a.Visit(t.Context(), denied.Complete, a.Users()[0], false)
	if err != nil || !strings.Contains(page, "Denied") {
		t.Errorf("%v, the person sees %s", err, page)
	}
	if got := a.poll(denied); got.Error != "access_denied" {
		t.Errorf("denied, the device got %+v", got)
	}
	a.Fail(identity.ExpiringCode)
	if got := a.poll(a.deviceCode()); got.Error != "expired_token" {
		t.Errorf("with an expired code the device got %+v", got)
	}
}

func TestDevicePages(t *testing.T) {
	a := start(t, identity.Options{Device: true})
	d := a.deviceCode()
	if page, err := a.Visit(t.Context(), a.Issuer()+"/device?user_code=WRNG-CODE", a.Users()[0], true); err != nil || !strings.Contains(page, "not known here") {
		t.Errorf("a wrong code: %v, %s", err, page)
	}
	// A person types as people do.
	var to string
	status := a.post("/device", url.Values{"user_code": {strings.ToLower(strings.Replace(d.UserCode, "-", " ", 1))}}, &to)
	id, ok := strings.CutPrefix(to, "/sign-in?request=")
	if status != http.StatusSeeOther || !ok {
		t.Fatalf("answered %d %s", status, to)
	}
	owner := a.Users()[0]
	a.post("/sign-in", url.Values{"request": {id}, "email": {owner.Email}, "password": {owner.Password.Reveal()}}, nil)
	var page string
	a.get(a.Issuer()+"/consent?request="+id, "", &page)
	for _, want := range []string{d.UserCode, "127.0.0.1", "Go-http-client", "host agent", "Only", owner.Email} {
		if !strings.Contains(strings.ToLower(page), strings.ToLower(want)) {
			t.Errorf("the consent page does not name %q: %s", want, page)
		}
	}
	if got := a.poll(d); got.Error != "authorization_pending" {
		t.Errorf("before consent the device got %+v", got)
	}
	bad := url.Values{"client_id": {a.ClientID()}, "scope": {"openid everything"}}
	var refused device
	if status := a.post("/oauth/device_authorization", bad, &refused); status != http.StatusBadRequest || refused.Error != "invalid_scope" {
		t.Errorf("an unknown scope is answered %d %+v", status, refused)
	}
	bad = url.Values{"client_id": {"someone"}, "scope": {"openid"}}
	if status := a.post("/oauth/device_authorization", bad, nil); status == http.StatusOK {
		t.Error("another client got a device code")
	}
}

func TestUsersAreWhatWasGiven(t *testing.T) {
	given := []identity.User{{ID: "user_1", Email: "a@example.com", Password: secret.New("one")}, {Email: "b@example.com"}}
	a := start(t, identity.Options{Users: given})
	users := a.Users()
	if users[0].ID != "user_1" || !users[0].Password.Equal(secret.New("one")) || users[1].ID == "" || users[1].Password.Empty() {
		t.Errorf("users = %+v", users)
	}
	if given[1].ID != "" {
		t.Error("what was drawn went into the caller's own")
	}
}
