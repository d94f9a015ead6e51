package signin

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // RS512
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBrowser(t *testing.T) {
	m := open(t, script{})
	var log bytes.Buffer
	c := m.client(t, func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	var callback string
	r := m.signIn(t, c, func(p Prompt) (visited, error) {
		callback, _ = redirect(t, p)
		if left := time.Until(p.ExpiresAt); left < 9*time.Minute || left > 10*time.Minute {
			t.Errorf("the prompt expires in %s, want ten minutes", left)
		}
		return m.browse(t.Context(), p.URL)
	})
	if r.err != nil || r.pageErr != nil {
		t.Fatalf("Browser: %v; the page: %v", r.err, r.pageErr)
	}
	if r.credential.Key.Reveal() != hostKey || r.credential.NodeID != "node-1" || r.credential.KeyID != "key-1" || r.credential.Owner != "ada@example.com" || !r.credential.ExpiresAt.IsZero() {
		t.Errorf("got %+v", r.credential)
	}
	want := []call{{
		method: "POST", path: "/v1/hosts", bearer: accessToken, idempotencyKey: "install-1",
		body: map[string]any{"install_id": "install-1", "hostname": "rig <1>", "os": "linux", "arch": "amd64", "agent_version": "1.2.3", "hardware": "1 GPU"},
	}}
	if diff := cmp.Diff(want, m.called(), cmp.AllowUnexported(call{})); diff != "" {
		t.Errorf("the API was called otherwise (-want +got):\n%s", diff)
	}
	asked := m.askedFor
	if asked.Get("scope") != "openid profile email host:enroll" {
		t.Errorf("asked for the scopes %q", asked.Get("scope"))
	}
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if len(asked.Get(name)) != 43 {
			t.Errorf("%s is %q, want 32 bytes", name, asked.Get(name))
		}
	}
	if asked.Get("state") == asked.Get("nonce") {
		t.Error("state and nonce are the same")
	}
	if r.page.url.Path != "/done" || strings.Contains(r.page.url.RawQuery, "code") || r.page.status != http.StatusOK {
		t.Errorf("the browser ends at %s with %d", r.page.url.Path, r.page.status)
	}
	for _, piece := range []string{"ada@example.com", "rig &lt;1&gt;", "You can close this tab"} {
		if !strings.Contains(r.page.text, piece) {
			t.Errorf("the page lacks %q:\n%s", piece, r.page.text)
		}
	}
	protected(t, r.page)
	if !refusesConnections(portOf(t, callback)) {
		t.Error("the port is still open")
	}
	for _, canary := range []string{accessToken, hostKey, asked.Get("state"), asked.Get("nonce")} {
		if strings.Contains(log.String(), canary) || strings.Contains(r.page.text, canary) || strings.Contains(fmt.Sprintf("%+v", r.credential), canary) {
			t.Errorf("%q shows", canary)
		}
	}
}

func protected(t *testing.T, page visited) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'", "Referrer-Policy": "no-referrer",
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	} {
		if got := page.header.Get(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s answers with %s %q, want %q", page.url.Path, name, got, want)
		}
	}
}

// TestOwnerOfTheIDToken: a marketplace may leave out whose host it is.
func TestOwnerOfTheIDToken(t *testing.T) {
	m := open(t, script{hosts: func(w http.ResponseWriter, _ *http.Request) {
		answer := credential()
		delete(answer, "owner")
		answerJSON(w, http.StatusCreated, answer)
	}})
	if r := m.signIn(t, m.client(t, nil), nil); r.err != nil || r.credential.Owner != "ada@example.com" {
		t.Errorf("got %+v, %v", r.credential, r.err)
	}
}

func TestDiscoveryRefused(t *testing.T) {
	set := func(name string, value any) func(map[string]any) {
		return func(d map[string]any) { d[name] = value }
	}
	elsewhere := open(t, script{})
	for name, test := range map[string]struct {
		do   script
		want string
	}{
		"another issuer": {script{discovery: set("issuer", "https://evil.example")}, `says that it is "https://evil.example"`},
		"a slash more":   {script{discovery: func(d map[string]any) { d["issuer"] = d["issuer"].(string) + "/" }}, "spelled the same"},
		"no issuer":      {script{discovery: set("issuer", "")}, "spelled the same"},
		"not found":      {script{discover: http.NotFound}, "does not answer as an OpenID provider (404"},
		"a web page":     {script{discover: says(200, "text/html", "<h1>Hi</h1>")}, "does not answer as an OpenID provider"},
		"in trouble":     {script{discover: says(503, "text/plain", "down")}, "503"},
		"without end":    {script{discover: says(200, "application/json", strings.Repeat(" ", maxAnswer+1))}, "more than 1 MiB"},
		"silent":         {script{discover: hangs}, "did not answer in time"},
		"gone":           {script{discover: hangsUp}, "cannot be reached"},
		"pointing elsewhere": {script{discover: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusFound)
		}}, "302"},
		"authorize over http": {script{discovery: set("authorization_endpoint", "http://login.example/authorize")}, "authorization_endpoint http://login.example/authorize: not an https:// address"},
		"authorize by script": {script{discovery: set("authorization_endpoint", "javascript:alert(1)")}, "authorization_endpoint"},
		"authorize with user": {script{discovery: set("authorization_endpoint", "https://a:b@login.example/")}, "not a plain web address"},
		"authorize too long":  {script{discovery: set("authorization_endpoint", "https://login.example/"+strings.Repeat("a", maxAddress))}, "longer than"},
		"tokens over http":    {script{discovery: set("token_endpoint", "http://127.0.0.1:1/token")}, "token_endpoint http://127.0.0.1:1/token: not an https:// address"},
		"keys over http":      {script{discovery: set("jwks_uri", "http://login.example/keys")}, "jwks_uri"},
		"codes over http":     {script{discovery: set("device_authorization_endpoint", "http://login.example/device")}, "device_authorization_endpoint"},
		"no keys":             {script{discovery: set("jwks_uri", nil)}, "its jwks_uri is missing"},
		"no tokens":           {script{discovery: set("token_endpoint", "")}, "its token_endpoint is missing"},
		"no PKCE":             {script{discovery: set("code_challenge_methods_supported", []string{"plain"})}, "does not take S256"},
		"not readable":        {script{discovery: set("authorization_response_iss_parameter_supported", "yes")}, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, test.do)
			c := m.client(t, nil)
			if name == "silent" {
				c.times.discovery = 50 * time.Millisecond
			}
			for method, sign := range map[string]func(context.Context, Host, func(Prompt)) (Credential, error){"Browser": c.Browser, "Device": c.Device} {
				got, err := sign(t.Context(), someHost(), func(p Prompt) { t.Errorf("%s shows %s", method, p.URL) })
				if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") || !got.Key.Empty() {
					t.Errorf("%s: got %v, want %q", method, err, test.want)
				}
			}
		})
	}
	if len(elsewhere.called()) != 0 {
		t.Error("a redirect was followed")
	}
}

func TestAnUnknownAuthorityIsRefused(t *testing.T) {
	m := open(t, script{})
	c := m.client(t, func(o *Options) { o.CAPEM = nil })
	_, err := c.Browser(t.Context(), someHost(), func(Prompt) { t.Error("it shows") })
	if err == nil || !strings.Contains(err.Error(), "authority this machine does not trust") {
		t.Errorf("got %v", err)
	}
}

func TestBrowserRefused(t *testing.T) {
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	claim := func(name string, value any) script {
		return script{claims: func(c map[string]any) { c[name] = value }}
	}
	back := func(pairs ...string) script {
		return script{authorize: func(back url.Values) {
			back.Del("code")
			for i := 0; i < len(pairs); i += 2 {
				back.Set(pairs[i], pairs[i+1])
			}
		}}
	}
	for name, test := range map[string]struct {
		do   script
		want string
	}{
		"declined":            {back("error", "access_denied", "error_description", "<b>no</b>\nthanks"), "declined in the browser (access_denied: <b>no</b> thanks)"},
		"provider in trouble": {back("error", "server_error"), "did not sign anybody in (server_error); start again"},
		"unknown scope":       {back("error", "invalid_scope", "error_description", "No host:enroll here."), "(invalid_scope: No host:enroll here); it does not know this agent well enough: tell the marketplace."},

		"token: bad grant":  {script{exchange: says(400, "application/json", `{"error":"invalid_grant","error_description":"used"}`)}, "(invalid_grant: used)"},
		"token: in trouble": {script{exchange: says(502, "text/html", "<h1>canary-page</h1>")}, "HTTP 502"},
		"token: elsewhere": {script{exchange: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/token", http.StatusTemporaryRedirect)
		}}, "HTTP 307"},
		"token: without end":    {script{exchange: says(200, "application/json", `{"x":"`+strings.Repeat("a", maxAnswer))}, "more than 1 MiB"},
		"token: not JSON":       {script{exchange: says(200, "application/json", `{"access_token`)}, "cannot be read"},
		"token: silent":         {script{exchange: hangs}, "did not answer in time"},
		"token: gone":           {script{exchange: hangsUp}, "cannot be reached"},
		"token: none":           {script{token: func(a map[string]any) { delete(a, "access_token") }}, "access_token"},
		"token: not a bearer's": {script{token: func(a map[string]any) { a["token_type"] = "DPoP" }}, "cannot be used"},
		"token: odd":            {script{token: func(a map[string]any) { a["access_token"] = "a\r\nX: b" }}, "cannot be used"},

		"ID: none":         {script{token: func(a map[string]any) { delete(a, "id_token") }}, "no ID token"},
		"ID: not a token":  {script{token: func(a map[string]any) { a["id_token"] = "a.b.c" }}, "does not hold"},
		"ID: other signer": {script{sign: func(c map[string]any) string { return signWith(other, "RS256", crypto.SHA256, c) }}, "failed to verify"},
		"ID: changed": {script{sign: func(c map[string]any) string {
			return jwtInput(map[string]any{"alg": "RS256", "kid": "1"}, c) + "." + strings.Split(rs256(map[string]any{}), ".")[2]
		}}, "failed to verify"},
		"ID: alg none": {script{sign: func(c map[string]any) string { return jwtInput(map[string]any{"alg": "none"}, c) + "." }}, "does not hold"},
		"ID: alg RS512": {script{
			sign: func(c map[string]any) string { return signWith(signer(), "RS512", crypto.SHA512, c) },
			keys: func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, 200, publicKey("")) },
		}, "does not hold"},
		"ID: alg HS256":        {script{sign: hs256}, "does not hold"},
		"ID: other issuer":     {claim("iss", "https://evil.example"), "different provider"},
		"ID: other client":     {claim("aud", "someone-else"), "audience"},
		"ID: clients":          {claim("aud", []string{clientID, "someone-else"}), "another client"},
		"ID: other nonce":      {claim("nonce", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), "another sign-in"},
		"ID: no nonce":         {script{claims: func(c map[string]any) { delete(c, "nonce") }}, "another sign-in"},
		"ID: expired":          {claim("exp", time.Now().Add(-time.Minute).Unix()), "check this machine's clock"},
		"ID: no expiry":        {script{claims: func(c map[string]any) { delete(c, "exp") }}, "check this machine's clock"},
		"ID: not yet":          {claim("nbf", time.Now().Add(time.Hour).Unix()), "not before"},
		"ID: another's token":  {claim("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"), "does not hold"},
		"ID: odd e-mail":       {claim("email", 7), "does not hold"},
		"keys: in trouble":     {script{keys: says(500, "text/plain", "down")}, "does not show its keys"},
		"keys: elsewhere":      {script{keys: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/keys2", http.StatusFound) }}, "does not show its keys"},
		"keys: without end":    {script{keys: says(200, "application/json", strings.Repeat(" ", maxAnswer+1))}, "does not show its keys"},
		"keys: someone else's": {script{keys: says(200, "application/json", `{"keys":[]}`)}, "failed to verify"},

		"API: may not host": {script{hosts: refuses(403, "host_suspended", "This account may not host.")}, "The marketplace says: This account may not host."},
		"API: in trouble":   {script{hosts: says(500, "text/plain", "")}, "in trouble (HTTP 500)"},
		"API: a web page":   {script{hosts: says(200, "text/html", "<h1>Welcome</h1>")}, "captive portal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t, test.do)
			c := m.client(t, nil)
			c.times.request = time.Second
			r := m.signIn(t, c, nil)
			if r.err == nil || !strings.Contains(r.err.Error(), test.want) || !r.credential.Key.Empty() {
				t.Fatalf("got %v, want %q", r.err, test.want)
			}
			if len(m.called()) > 0 != strings.HasPrefix(name, "API") {
				t.Errorf("the API was called: %v", m.called())
			}
			if r.pageErr != nil || r.page.url.Path != "/done" || !strings.Contains(r.page.text, "did not work") || !strings.Contains(html.UnescapeString(r.page.text), r.err.Error()) {
				t.Errorf("the browser shows %v %s", r.pageErr, r.page.text)
			}
			if strings.Contains(r.page.text, "<b>") {
				t.Error("the page shows what the provider wrote as it is")
			}
			for _, canary := range []string{accessToken, hostKey, "canary-page"} {
				if strings.Contains(r.err.Error(), canary) {
					t.Errorf("the error shows %q", canary)
				}
			}
			protected(t, r.page)
		})
	}
}

// hs256 signs with the provider's public key, which everybody has.
func hs256(claims map[string]any) string {
	input := jwtInput(map[string]any{"alg": "HS256", "kid": "1"}, claims)
	mac := hmac.New(sha256.New, x509.MarshalPKCS1PublicKey(&signer().PublicKey))
	mac.Write([]byte(input))
	return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// TestSeveralAudiences: a token for several clients holds if it says that it was made for this one.
func TestSeveralAudiences(t *testing.T) {
	m := open(t, script{claims: func(c map[string]any) { c["aud"], c["azp"] = []string{"api", clientID}, clientID }})
	if r := m.signIn(t, m.client(t, nil), nil); r.err != nil {
		t.Error(r.err)
	}
}

func TestStrangersDoNotEndASignIn(t *testing.T) {
	for name, test := range map[string]struct {
		method, path, host string
		query              func(good url.Values)
		want               int
	}{
		"nothing":            {query: func(q url.Values) { clear(q) }, want: 400},
		"no state":           {query: func(q url.Values) { q.Del("state") }, want: 400},
		"wrong state":        {query: func(q url.Values) { q.Set("state", "x"+q.Get("state")[1:]+"y") }, want: 400},
		"half a state":       {query: func(q url.Values) { q.Set("state", q.Get("state")[:20]) }, want: 400},
		"two states":         {query: func(q url.Values) { q.Add("state", "x") }, want: 400},
		"two codes":          {query: func(q url.Values) { q.Add("code", "x") }, want: 400},
		"error, no state":    {query: func(q url.Values) { clear(q); q.Set("error", "access_denied") }, want: 400},
		"error, wrong state": {query: func(q url.Values) { q.Set("state", "x"); q.Set("error", "access_denied") }, want: 400},
		"code and error":     {query: func(q url.Values) { q.Set("error", "access_denied") }, want: 400},
		"state alone":        {query: func(q url.Values) { q.Del("code") }, want: 400},
		"other issuer":       {query: func(q url.Values) { q.Set("iss", "https://evil.example") }, want: 400},
		"no issuer":          {query: func(q url.Values) { q.Del("iss") }, want: 400},
		"other site's name":  {host: "evil.example", want: 400},
		"localhost":          {host: "localhost", want: 400},
		"no port":            {host: "127.0.0.1", want: 400},
		"POST":               {method: "POST", want: 405},
		"HEAD":               {method: "HEAD", want: 405},
		"OPTIONS":            {method: "OPTIONS", want: 405},
		"other path":         {path: "/callback/", want: 404},
		"root":               {path: "/", want: 404},
		"icon":               {path: "/favicon.ico", want: 404},
		"last page":          {path: "/done", want: 404},
		"last page, guessed": {path: "/done", query: func(q url.Values) { clear(q); q.Set("ticket", "x") }, want: 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t, script{})
			r := m.signIn(t, m.client(t, nil), func(p Prompt) (visited, error) {
				callback, state := redirect(t, p)
				q := url.Values{"code": {"stolen"}, "state": {state}, "iss": {m.URL}}
				if test.query != nil {
					test.query(q)
				}
				address, err := url.Parse(callback)
				if err != nil {
					return visited{}, err
				}
				if address.RawQuery = q.Encode(); test.path != "" {
					address.Path = test.path
				}
				method := test.method
				if method == "" {
					method = http.MethodGet
				}
				req, err := http.NewRequestWithContext(t.Context(), method, address.String(), nil)
				if err != nil {
					return visited{}, err
				}
				req.Host = test.host
				res, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					return visited{}, err
				}
				res.Body.Close()
				if res.StatusCode != test.want {
					t.Errorf("answered with %d, want %d", res.StatusCode, test.want)
				}
				protected(t, visited{url: req.URL, header: res.Header})
				return m.browse(t.Context(), p.URL)
			})
			if r.err != nil || r.pageErr != nil || r.page.url.Path != "/done" {
				t.Errorf("the sign-in itself: %v, %v", r.err, r.pageErr)
			}
			if m.exchanges() != 1 {
				t.Errorf("%d codes were exchanged", m.exchanges())
			}
		})
	}
}

// TestIssuerNotNamed: most providers do not name themselves in the answer, and need not.
func TestIssuerNotNamed(t *testing.T) {
	m := open(t, script{
		discovery: func(d map[string]any) { delete(d, "authorization_response_iss_parameter_supported") },
		authorize: func(back url.Values) { back.Del("iss") },
	})
	if r := m.signIn(t, m.client(t, nil), nil); r.err != nil {
		t.Error(r.err)
	}
}

// TestTwoTabs: the browser is held until the host is registered, the second tab is told of the
// first, and a code that comes again is not shown to the provider again.
func TestTwoTabs(t *testing.T) {
	registering, registered := make(chan struct{}), make(chan struct{})
	m := open(t, script{hosts: func(w http.ResponseWriter, _ *http.Request) {
		close(registering)
		<-registered
		answerJSON(w, http.StatusCreated, credential())
	}})
	c := m.client(t, nil)
	c.times.header = 50 * time.Millisecond // a browser that is held has said what it wants
	r := m.signIn(t, c, func(p Prompt) (visited, error) {
		type end struct {
			visited
			error
		}
		first := make(chan end, 1)
		go func() {
			page, err := m.browse(t.Context(), p.URL)
			first <- end{page, err}
		}()
		<-registering
		second, err := m.browse(t.Context(), p.URL)
		if err != nil || second.status != http.StatusConflict || !strings.Contains(second.text, "another tab") {
			t.Errorf("the second tab: %v %+v", err, second)
		}
		select {
		case early := <-first:
			t.Errorf("the first tab was answered before the host was registered: %+v", early)
		case <-time.After(200 * time.Millisecond):
		}
		close(registered)
		last := <-first
		return last.visited, last.error
	})
	if r.err != nil || r.pageErr != nil || r.page.url.Path != "/done" {
		t.Errorf("got %v, %v", r.err, r.pageErr)
	}
	if m.exchanges() != 1 {
		t.Errorf("%d codes were exchanged, want 1", m.exchanges())
	}
}

// TestALostCodeIsNotShownAgain: a code is good once, and shown twice it voids what it gave.
func TestALostCodeIsNotShownAgain(t *testing.T) {
	m := open(t, script{exchange: hangsUp})
	if r := m.signIn(t, m.client(t, nil), nil); r.err == nil {
		t.Error("a sign-in without tokens succeeds")
	}
	if m.exchanges() != 1 {
		t.Errorf("the code was shown %d times", m.exchanges())
	}
}

func TestCancel(t *testing.T) {
	for name, do := range map[string]script{"before": {}, "during the exchange": {exchange: hangs}, "during the registration": {hosts: hangs}} {
		t.Run(name, func(t *testing.T) {
			m := open(t, do)
			c := m.client(t, nil)
			ctx, cancel := context.WithCancel(t.Context())
			begun := time.Now()
			var callback string
			_, err := c.Browser(ctx, someHost(), func(p Prompt) {
				callback, _ = redirect(t, p)
				if name == "before" {
					cancel()
					return
				}
				go func() { _, _ = m.browse(t.Context(), p.URL) }()
				go func() {
					for m.exchanges() == 0 || name == "during the registration" && len(m.called()) == 0 {
						time.Sleep(time.Millisecond)
					}
					cancel()
				}()
			})
			if !errors.Is(err, context.Canceled) || time.Since(begun) > 5*time.Second {
				t.Errorf("got %v after %s", err, time.Since(begun))
			}
			if !refusesConnections(portOf(t, callback)) {
				t.Error("the port is still open")
			}
		})
	}
}

// TestCancelledTooLate: the key before is void once the host is registered, so the new one is not lost.
func TestCancelledTooLate(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m := open(t, script{hosts: func(w http.ResponseWriter, r *http.Request) {
		cancel()
		select {
		case <-time.After(100 * time.Millisecond): // in which a client that gives up would do so
			registers(w, r)
		case <-r.Context().Done():
		}
	}})
	got, err := m.client(t, nil).Browser(ctx, someHost(), func(p Prompt) {
		go func() { _, _ = m.browse(t.Context(), p.URL) }()
	})
	if err != nil || got.Key.Reveal() != hostKey {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestNobodySignsIn(t *testing.T) {
	m := open(t, script{})
	c := m.client(t, nil)
	c.times.person = 50 * time.Millisecond
	_, err := c.Browser(t.Context(), someHost(), func(Prompt) {})
	if err == nil || !strings.Contains(err.Error(), "http://127.0.0.1/callback on any port") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestTheMarketplaceIsSlow: what takes too long after the browser's return ends with a reason.
func TestTheMarketplaceIsSlow(t *testing.T) {
	m := open(t, script{hosts: hangs})
	c := m.client(t, nil)
	c.times.finish = 100 * time.Millisecond
	r := m.signIn(t, c, nil)
	if r.err == nil || !strings.Contains(r.err.Error(), "did not answer in time") || r.pageErr != nil {
		t.Errorf("got %v, %v", r.err, r.pageErr)
	}
}

// TestTheTabIsClosed: the sign-in is finished all the same, and nobody waits for long.
func TestTheTabIsClosed(t *testing.T) {
	m := open(t, script{})
	c := m.client(t, nil)
	c.times.farewell = 100 * time.Millisecond
	r := m.signIn(t, c, func(p Prompt) (visited, error) {
		callback, state := redirect(t, p)
		stay := http.Client{Transport: m.Client().Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		there, err := visit(t.Context(), &stay, p.URL)
		if err != nil {
			return visited{}, err
		}
		conn, err := net.Dial("tcp", portOf(t, callback))
		if err != nil {
			return visited{}, err
		}
		_, query, _ := strings.Cut(there.header.Get("Location"), "?")
		if !strings.Contains(query, state) {
			t.Errorf("the provider sends the browser to %s", there.header.Get("Location"))
		}
		fmt.Fprintf(conn, "GET /callback?%s HTTP/1.1\r\nHost: %s\r\n\r\n", query, portOf(t, callback))
		return visited{}, conn.Close()
	})
	if r.err != nil || r.credential.Key.Empty() {
		t.Errorf("got %v", r.err)
	}
}

// TestAFloodShutsNobodyOut: neither connections that say nothing nor ones that begin to say
// something keep the browser from returning, also while it is held.
func TestAFloodShutsNobodyOut(t *testing.T) {
	for name, opening := range map[string]string{"silent": "", "slow": "GET /callback HTTP/1.1\r\nHost: "} {
		t.Run(name, func(t *testing.T) {
			var flooded []net.Conn
			flood := func(address string) {
				for range 4 * maxGuests {
					conn, err := net.Dial("tcp", address)
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = conn.Write([]byte(opening))
					flooded = append(flooded, conn)
				}
			}
			var address string
			m := open(t, script{hosts: func(w http.ResponseWriter, _ *http.Request) {
				flood(address)
				answerJSON(w, http.StatusCreated, credential())
			}})
			c := m.client(t, nil)
			c.times.header = time.Minute
			c.times.farewell = time.Second
			r := m.signIn(t, c, func(p Prompt) (visited, error) {
				callback, _ := redirect(t, p)
				address = portOf(t, callback)
				flood(address)
				if !hungUp(flooded[0]) {
					t.Error("every connection is kept")
				}
				return m.browse(t.Context(), p.URL)
			})
			if r.err != nil || r.pageErr != nil || r.page.url.Path != "/done" {
				t.Errorf("got %v, %v", r.err, r.pageErr)
			}
			for _, conn := range flooded {
				if !hungUp(conn) {
					t.Error("a connection outlives the sign-in")
					break
				}
			}
			for _, conn := range flooded {
				conn.Close()
			}
		})
	}
}

// hungUp reports whether the other side has closed the connection, or soon does.
func hungUp(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := io.Copy(io.Discard, conn)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// TestHugeHeader: what a stranger sends is bounded.
func TestHugeHeader(t *testing.T) {
	m := open(t, script{})
	r := m.signIn(t, m.client(t, nil), func(p Prompt) (visited, error) {
		callback, _ := redirect(t, p)
		if page, err := m.browse(t.Context(), callback+"?state="+strings.Repeat("a", 64<<10)); err == nil && page.status != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("answered with %d", page.status)
		}
		return m.browse(t.Context(), p.URL)
	})
	if r.err != nil {
		t.Error(r.err)
	}
}

// FuzzCallback: whatever comes to the sign-in's port, only what holds the state is the provider's
// answer, and it is either a code or a reason.
func FuzzCallback(f *testing.F) {
	const state = "3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for _, query := range []string{"", "code=a&state=" + state, "error=access_denied&error_description=no&state=" + state, "code=a&state=" + state + "&iss=https://login.example", "state=" + state + "&state=", "code=%zz"} {
		f.Add(query)
	}
	r := &returning{provider: &provider{}, issuer: "https://login.example", state: state}
	f.Fuzz(func(t *testing.T, query string) {
		a, err := r.read(query)
		if err != nil {
			return
		}
		q, _ := url.ParseQuery(query)
		if q.Get("state") != state || len(q["state"]) != 1 || (a.code == "") == (a.refusal == "") || q.Has("iss") && q.Get("iss") != r.issuer {
			t.Errorf("%q is taken for an answer: %+v", query, a)
		}
	})
}
