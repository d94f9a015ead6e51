package signin

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/secret"
)

const enrolToken = "dce_canary-enrolment-token"

// inTurn answers each request with the next handler, and the last one for ever.
func inTurn(handlers ...http.HandlerFunc) http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		handlers[min(int(n.Add(1)), len(handlers))-1](w, r)
	}
}

func registers(w http.ResponseWriter, _ *http.Request) {
	answerJSON(w, http.StatusCreated, credential())
}

func TestEnrol(t *testing.T) {
	later := func(status int, header string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", header)
			w.WriteHeader(status)
		}
	}
	short := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"node_id":`))
	}
	for name, test := range map[string]struct {
		hosts http.HandlerFunc
		want  string // of the error; "": none
		calls int
	}{
		"at once":        {registers, "", 1},
		"lost answer":    {inTurn(hangsUp, registers), "", 2},
		"half an answer": {inTurn(short, registers), "", 2},
		"in trouble":     {inTurn(says(503, "text/plain", ""), says(500, "text/plain", ""), says(502, "text/html", ""), registers), "", 4},
		"busy":           {inTurn(later(429, "0"), registers), "", 2},
		"busy till then": {inTurn(later(503, time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)), registers), "", 2},
		"busy for long":  {inTurn(later(429, "3600"), registers), "try again later", 1},
		"down":           {hangsUp, "cannot be reached", tries},
		"always trouble": {refuses(503, "maintenance", "Back at noon."), "The marketplace says: Back at noon.", tries},
		"may not host":   {inTurn(refuses(403, "host_suspended", "Suspended."), registers), "The marketplace says: Suspended.", 1},
		"token used up":  {inTurn(refuses(401, "unauthorized", "Used."), registers), "The marketplace says: Used.", 1},
		"without words":  {refuses(409, "conflict", ""), "(conflict, HTTP 409)", 1},
		"portal":         {inTurn(says(401, "text/html", "<h1>"), registers), "captive portal", 1},
		"other's 401":    {inTurn(says(401, "application/json", `{"error":{"code":"key_revoked"}}`), registers), "captive portal", 1},
		"elsewhere":      {says(302, "text/html", ""), "points elsewhere", 1},
		"not found":      {says(404, "text/plain", "404"), "check the address", 1},
		"not accepted":   {says(418, "text/plain", ""), "did not accept this (HTTP 418)", 1},
		"a web page":     {says(200, "text/html", "<h1>"), "captive portal", 1},
		"without end":    {says(201, "application/json", strings.Repeat(" ", maxAnswer+1)), "more than 1 MiB", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t, script{hosts: test.hosts})
			// Nobody needs a sign-in to enrol.
			c := m.client(t, func(o *Options) { o.Issuer, o.ClientID = "", "" })
			got, err := c.Enrol(t.Context(), someHost(), secret.New(enrolToken))
			if test.want == "" && (err != nil || got.Key.Reveal() != hostKey) {
				t.Errorf("got %+v, %v", got, err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || !got.Key.Empty() || strings.Contains(err.Error(), enrolToken)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			calls := m.called()
			if len(calls) != test.calls {
				t.Errorf("%d calls, want %d", len(calls), test.calls)
			}
			for _, again := range calls {
				if diff := cmp.Diff(calls[0], again, cmp.AllowUnexported(call{})); diff != "" || again.idempotencyKey != "install-1" || again.bearer != enrolToken {
					t.Errorf("another call is another request: %s%+v", diff, again)
				}
			}
		})
	}
}

// TestANodeThatIsNotTheAccounts: somebody else signs in on a host, or its node was deleted meanwhile.
func TestANodeThatIsNotTheAccounts(t *testing.T) {
	unknown := refuses(404, "not_found", "There is no such node of this account.")
	for name, test := range map[string]struct {
		hosts   http.HandlerFunc
		replace string
		calls   int
		want    string // of the error; "": none
	}{
		"is left out":   {inTurn(unknown, registers), "node-of-another", 2, ""},
		"nothing to do": {unknown, "", 1, "no such node"},
		"once only":     {unknown, "node-of-another", 2, "no such node"},
		"another no":    {refuses(403, "not_allowed", "Not allowed."), "node-1", 1, "Not allowed"},
		"not the API":   {says(404, "text/html", "not found"), "node-1", 1, "check the address"},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, script{hosts: test.hosts})
			h := someHost()
			h.ReplaceNodeID = test.replace
			_, err := m.client(t, nil).Enrol(t.Context(), h, secret.New(enrolToken))
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			calls := m.called()
			if len(calls) != test.calls || test.replace != "" && calls[0].body["replace_node_id"] != test.replace {
				t.Fatalf("sent %+v", calls)
			}
			if len(calls) == 2 && (calls[1].body["replace_node_id"] != nil || calls[1].bearer != enrolToken || calls[1].body["install_id"] != "install-1") {
				t.Errorf("then sent %+v", calls[1])
			}
		})
	}
}

func TestCancelEnrol(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m := open(t, script{hosts: func(w http.ResponseWriter, r *http.Request) {
		time.AfterFunc(50*time.Millisecond, cancel)
		refuses(503, "maintenance", "Back soon.")(w, r)
	}})
	c := m.client(t, nil)
	c.times.retry = 10 * time.Second
	if _, err := c.Enrol(ctx, someHost(), secret.New(enrolToken)); !errors.Is(err, context.Canceled) || len(m.called()) != 1 {
		t.Errorf("got %v after %d calls", err, len(m.called()))
	}
}

// TestATokenGoesNowhereElse: no redirect carries it along.
func TestATokenGoesNowhereElse(t *testing.T) {
	var asked atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		m := open(t, script{hosts: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, status) }})
		c := m.client(t, nil)
		if _, err := c.Enrol(t.Context(), someHost(), secret.New(enrolToken)); err == nil {
			t.Errorf("%d: no error", status)
		}
		if _, err := c.Self(t.Context(), secret.New(hostKey)); err == nil {
			t.Errorf("%d: no error", status)
		}
		if len(m.called()) != 2 {
			t.Errorf("%d: %d calls", status, len(m.called()))
		}
	}
	if asked.Load() {
		t.Error("a redirect was followed")
	}
}

func TestRefusal(t *testing.T) {
	long := "Nope\n\x1b[31m" + strings.Repeat("é", 300)
	m := open(t, script{hosts: refuses(401, "key_revoked", long)})
	_, err := m.client(t, nil).Self(t.Context(), secret.New(hostKey))
	r, ok := errors.AsType[*Refusal](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	if r.Status != 401 || r.Code != "key_revoked" || len([]rune(r.Message)) != 200 || !strings.HasPrefix(r.Message, "Nope [31mé") {
		t.Errorf("got %+v", r)
	}
}

func TestCredentialsThatCannotBe(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"no key":      func(a map[string]any) { delete(a, "host_api_key") },
		"short key":   func(a map[string]any) { a["host_api_key"] = "canary7" },
		"long key":    func(a map[string]any) { a["host_api_key"] = "canary" + strings.Repeat("a", 507) },
		"space":       func(a map[string]any) { a["host_api_key"] = "canary host key" },
		"line":        func(a map[string]any) { a["host_api_key"] = "canary-host-key\n" },
		"not ASCII":   func(a map[string]any) { a["host_api_key"] = "canary-höst-key" },
		"key object":  func(a map[string]any) { a["host_api_key"] = map[string]any{"canary": 1} },
		"no node":     func(a map[string]any) { delete(a, "node_id") },
		"path":        func(a map[string]any) { a["node_id"] = "../self" },
		"parent":      func(a map[string]any) { a["node_id"] = ".." },
		"no key id":   func(a map[string]any) { a["key_id"] = "" },
		"long key id": func(a map[string]any) { a["key_id"] = strings.Repeat("a", 129) },
		"odd expiry":  func(a map[string]any) { a["expires_at"] = "soon" },
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, script{hosts: func(w http.ResponseWriter, _ *http.Request) {
				answer := credential()
				change(answer)
				answerJSON(w, http.StatusCreated, answer)
			}})
			got, err := m.client(t, nil).Enrol(t.Context(), someHost(), secret.New(enrolToken))
			if err == nil || !got.Key.Empty() || strings.Contains(err.Error(), "canary") {
				t.Errorf("got %+v, %v", got, err)
			}
			if len(m.called()) != 1 {
				t.Errorf("%d calls", len(m.called()))
			}
		})
	}
}

func TestCredential(t *testing.T) {
	m := open(t, script{hosts: func(w http.ResponseWriter, _ *http.Request) {
		answer := credential()
		answer["owner"] = map[string]any{"email": "a\nb@example.com"}
		answer["expires_at"] = "2030-01-02T03:04:05Z"
		answer["connect_url"] = "wss://ignored.example"
		answerJSON(w, http.StatusCreated, answer)
	}})
	h := someHost()
	h.AgentVersion, h.ReplaceNodeID = "9", "node-0"
	got, err := m.client(t, nil).Enrol(t.Context(), h, secret.New(enrolToken))
	if err != nil || got.Owner != "a b@example.com" || !got.ExpiresAt.Equal(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("got %+v, %v", got, err)
	}
	if body := m.called()[0].body; body["agent_version"] != "9" || body["replace_node_id"] != "node-0" {
		t.Errorf("sent %v", body)
	}
	if text := fmt.Sprintf("%v %+v %#v", got, got, got); strings.Contains(text, hostKey) {
		t.Errorf("the key shows: %s", text)
	}
}

func TestWhatIsNotSent(t *testing.T) {
	m := open(t, script{})
	c := m.client(t, nil)
	key := secret.New(hostKey)
	for name, do := range map[string]func(context.Context) error{
		"no token":    func(ctx context.Context) error { _, err := c.Enrol(ctx, someHost(), secret.String{}); return err },
		"short token": func(ctx context.Context) error { _, err := c.Enrol(ctx, someHost(), secret.New("dce_")); return err },
		"token of lines": func(ctx context.Context) error {
			_, err := c.Enrol(ctx, someHost(), secret.New(enrolToken+"\nx"))
			return err
		},
		"no install id":     func(ctx context.Context) error { _, err := c.Enrol(ctx, Host{}, secret.New(enrolToken)); return err },
		"rotate no node":    func(ctx context.Context) error { _, err := c.Rotate(ctx, "", key); return err },
		"rotate other path": func(ctx context.Context) error { _, err := c.Rotate(ctx, "a/b", key); return err },
		"rotate no key":     func(ctx context.Context) error { _, err := c.Rotate(ctx, "node-1", secret.String{}); return err },
		"revoke no key id":  func(ctx context.Context) error { return c.Revoke(ctx, "node-1", "", key) },
		"revoke up":         func(ctx context.Context) error { return c.Revoke(ctx, "..", "key-1", key) },
		"self no key":       func(ctx context.Context) error { _, err := c.Self(ctx, secret.String{}); return err },
		"self odd key":      func(ctx context.Context) error { _, err := c.Self(ctx, secret.New("a\r\nb")); return err },
	} {
		if err := do(t.Context()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if len(m.called()) != 0 {
		t.Errorf("sent: %+v", m.called())
	}
}

func TestRotate(t *testing.T) {
	m := open(t, script{hosts: inTurn(hangsUp, registers, func(w http.ResponseWriter, _ *http.Request) {
		answer := credential()
		answer["node_id"] = "node-2"
		answerJSON(w, http.StatusCreated, answer)
	})})
	c := m.client(t, nil)
	got, err := c.Rotate(t.Context(), "node-1", secret.New("the-old-key"))
	if err != nil || got.Key.Reveal() != hostKey {
		t.Errorf("got %+v, %v", got, err)
	}
	calls := m.called()
	for _, one := range calls {
		if one.method != "POST" || one.path != "/v1/hosts/node-1/keys" || one.bearer != "the-old-key" || one.idempotencyKey == "" || one.idempotencyKey != calls[0].idempotencyKey {
			t.Errorf("sent %+v", one)
		}
	}
	if got, err := c.Rotate(t.Context(), "node-1", secret.New("the-old-key")); err == nil || !got.Key.Empty() {
		t.Errorf("the key of another node is taken: %+v, %v", got, err)
	}
	if last := m.called()[2]; last.idempotencyKey == calls[0].idempotencyKey {
		t.Error("another rotation has the same idempotency key")
	}
}

func TestRevoke(t *testing.T) {
	gone := says(204, "text/plain", "")
	revoked := refuses(401, "key_revoked", "Revoked.")
	for name, test := range map[string]struct {
		hosts http.HandlerFunc
		want  string
		calls int
	}{
		"at once":      {gone, "", 1},
		"lost answer":  {inTurn(hangsUp, revoked), "", 2},
		"void already": {revoked, "Revoked", 1},
		"portal":       {inTurn(hangsUp, says(401, "text/html", "")), "captive portal", 2},
		"down":         {hangsUp, "cannot be reached", tries},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, script{hosts: test.hosts})
			err := m.client(t, nil).Revoke(t.Context(), "node-1", "key-1", secret.New(hostKey))
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			calls := m.called()
			if len(calls) != test.calls || slices.ContainsFunc(calls, func(c call) bool {
				return c.method != "DELETE" || c.path != "/v1/hosts/node-1/keys/key-1" || c.bearer != hostKey
			}) {
				t.Errorf("sent %+v", calls)
			}
		})
	}
}

func TestSelf(t *testing.T) {
	m := open(t, script{hosts: inTurn(
		says(200, "application/json", `{"node_id":"node-1","key_id":"key-1","owner":{"email":"ada@example.com"},"expires_at":null}`),
		says(503, "text/plain", ""),
		says(200, "application/json", `{}`),
	)})
	c := m.client(t, nil)
	got, err := c.Self(t.Context(), secret.New(hostKey))
	if want := (Self{NodeID: "node-1", KeyID: "key-1", Owner: "ada@example.com"}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for range 2 {
		if _, err := c.Self(t.Context(), secret.New(hostKey)); err == nil {
			t.Error("no error")
		}
	}
	if calls := m.called(); len(calls) != 3 || calls[0].method != "GET" || calls[0].path != "/v1/hosts/self" || calls[0].bearer != hostKey {
		t.Errorf("sent %+v", calls)
	}
}

func TestNew(t *testing.T) {
	good := Options{Issuer: "https://login.example", ClientID: clientID, API: "https://api.example"}
	for name, test := range map[string]struct {
		change func(*Options)
		want   string // "": accepted
	}{
		"good":       {func(*Options) {}, ""},
		"no sign-in": {func(o *Options) { o.Issuer, o.ClientID = "", "" }, ""},
		"loopback": {func(o *Options) {
			o.API, o.Issuer, o.AllowInsecureLoopback = "http://127.0.0.1:1", "http://[::1]:2/", true
		}, ""},
		"localhost":         {func(o *Options) { o.API, o.AllowInsecureLoopback = "http://localhost:1", true }, ""},
		"loopback, not let": {func(o *Options) { o.API = "http://127.0.0.1:1" }, "without TLS"},
		"API over http":     {func(o *Options) { o.API, o.AllowInsecureLoopback = "http://api.example", true }, "this machine only"},
		"looks like us":     {func(o *Options) { o.API, o.AllowInsecureLoopback = "http://127.0.0.1.example", true }, "this machine only"},
		"issuer over http":  {func(o *Options) { o.Issuer, o.AllowInsecureLoopback = "http://10.0.0.1", true }, "this machine only"},
		"no API":            {func(o *Options) { o.API = "" }, "the marketplace's address is missing"},
		"websocket":         {func(o *Options) { o.API = "wss://api.example" }, "not an https:// address"},
		"no host":           {func(o *Options) { o.API = "https:///v1" }, "not a plain web address"},
		"query":             {func(o *Options) { o.API = "https://api.example?x" }, "query"},
		"issuer's query":    {func(o *Options) { o.Issuer = "https://login.example/?x=1" }, "query"},
		"password":          {func(o *Options) { o.API = "https://a:b@api.example" }, "not a plain web address"},
		"no client id":      {func(o *Options) { o.ClientID = "" }, "client id"},
		"no certificates":   {func(o *Options) { o.CAPEM = []byte("x") }, "no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			test.change(&o)
			_, err := New(o)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestNoSignInConfigured(t *testing.T) {
	c := open(t, script{}).client(t, func(o *Options) { o.Issuer = "" })
	for name, sign := range map[string]func(context.Context, Host, func(Prompt)) (Credential, error){"Browser": c.Browser, "Device": c.Device} {
		if _, err := sign(t.Context(), someHost(), func(Prompt) { t.Error("it shows") }); err == nil || !strings.Contains(err.Error(), "does not know the marketplace's sign-in") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOldTLS: a server that speaks only what is too old to be safe is sent nothing.
func TestOldTLS(t *testing.T) {
	old := httptest.NewUnstartedServer(http.HandlerFunc(registers))
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	old.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	old.StartTLS()
	defer old.Close()
	m := open(t, script{})
	c := m.client(t, func(o *Options) {
		o.API, o.CAPEM = old.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: old.Certificate().Raw})
	})
	if _, err := c.Enrol(t.Context(), someHost(), secret.New(enrolToken)); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("got %v", err)
	}
}
