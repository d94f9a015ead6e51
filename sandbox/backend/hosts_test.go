package backend_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/core/signin"
	"github.com/distributedcompute/host-agent/sandbox/backend"
	"github.com/distributedcompute/host-agent/sandbox/ca"
	"github.com/distributedcompute/host-agent/sandbox/identity"
)

// The OpenID library reports every refusal through slog's default.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// withPeople is a backend where people sign in; the first user owns what nobody enrols.
type withPeople struct {
	market
	people *identity.Provider
	t      *testing.T
}

func startWithPeople(t *testing.T, options backend.Options) withPeople {
	t.Helper()
	authority, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	people, err := identity.Start(t.Context(), identity.Options{CA: authority, Device: true, Users: []identity.User{{Email: "ada@example.com"}, {Email: "bob@example.com"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = people.Close() })
	options.CA, options.Identity = authority, people
	ada := people.Users()[0]
	options.Owner = backend.Owner{ID: ada.ID, Email: ada.Email}
	b, err := backend.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return withPeople{market{b, authority}, people, t}
}

func (w withPeople) client() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.authority.Pool()}, DisableKeepAlives: true}}
}

// tokens signs a user in by plain HTTP.
func (w withPeople) tokens(user int, scope string) (access, id string) {
	w.t.Helper()
	codes := make(chan string, 1)
	callback := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { codes <- r.FormValue("code") }))
	defer callback.Close()
	verifier := rand.Text() + rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	ask := url.Values{
		"response_type": {"code"}, "client_id": {w.people.ClientID()}, "redirect_uri": {callback.URL + "/callback"}, "scope": {scope}, "state": {rand.Text()},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}
	if _, err := w.people.Visit(w.t.Context(), w.people.Issuer()+"/oauth/authorize?"+ask.Encode(), w.people.Users()[user], true); err != nil {
		w.t.Fatal(err)
	}
	response, err := w.client().PostForm(w.people.Issuer()+"/oauth/token", url.Values{
		"grant_type": {"authorization_code"}, "client_id": ask["client_id"], "redirect_uri": ask["redirect_uri"], "code": {<-codes}, "code_verifier": {verifier},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	var got struct {
		Access string `json:"access_token"`
		ID     string `json:"id_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil || got.Access == "" {
		w.t.Fatalf("signing in: %v", err)
	}
	return got.Access, got.ID
}

func (w withPeople) access() string {
	w.t.Helper()
	access, _ := w.tokens(0, "openid profile email host:enroll")
	return access
}

// reply is an answer of the hosts API.
type reply struct {
	Status    int
	Challenge string
	Key       string    `json:"host_api_key"`
	NodeID    string    `json:"node_id"`
	KeyID     string    `json:"key_id"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	Owner     struct{ Email string }
	Error     protocol.Error
}

// refused reports whether r is a whole refusal.
func (r reply) refused(status int, code string) bool {
	challenge := ""
	if status == http.StatusUnauthorized {
		challenge = `Bearer realm="distributedcompute"`
	}
	return r.Status == status && string(r.Error.Code) == code && r.Error.Message != "" && r.Key == "" && r.Challenge == challenge
}

func (w withPeople) call(method, path, bearer string, body []byte, headers ...string) (got reply) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, w.api()+path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := w.client().Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &got); err != nil {
			w.t.Fatalf("%s %s answered %s: %v", method, path, text, err)
		}
	}
	got.Status, got.Challenge = response.StatusCode, response.Header.Get("WWW-Authenticate")
	return got
}

func (w withPeople) api() string {
	return "https://" + strings.TrimSuffix(strings.TrimPrefix(w.URL(), "wss://"), backend.Path)
}

// enrol enrols a host in the way of an agent; fields change what it says of itself.
func (w withPeople) enrol(bearer, install string, fields ...string) reply {
	w.t.Helper()
	says := map[string]string{"install_id": install, "hostname": "tower", "os": "linux", "arch": "amd64", "agent_version": "1.0.0", "hardware": "2 × RTX 4090"}
	for i := 0; i < len(fields); i += 2 {
		says[fields[i]] = fields[i+1]
	}
	body, err := json.Marshal(says)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.call(http.MethodPost, "/v1/hosts", bearer, body, "Idempotency-Key", install)
}

// good reports whether a host key is.
func (w withPeople) good(key string) bool {
	w.t.Helper()
	return w.call(http.MethodGet, "/v1/hosts/self", key, nil).Status == http.StatusOK
}

func TestEnrol(t *testing.T) {
	w := startWithPeople(t, backend.Options{KeyLifetime: time.Hour})
	access := w.access()
	got := w.enrol(access, "install-1")
	if got.Status != http.StatusCreated || got.NodeID == "" || got.Owner.Email != "ada@example.com" || time.Since(got.CreatedAt) > time.Minute || !got.ExpiresAt.Equal(got.CreatedAt.Add(time.Hour)) {
		t.Fatalf("answer = %+v", got)
	}
	shape := regexp.MustCompile(`^(dch_sandbox_(\w+?)_[\w-]{43})_([0-9a-f]{8})$`).FindStringSubmatch(got.Key)
	if shape == nil || shape[2] != got.KeyID || shape[3] != fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(shape[1]))) {
		t.Errorf("a key of shape %q", regexp.MustCompile(`[\w-]{43}`).ReplaceAllString(got.Key, "…"))
	}
	self := w.call(http.MethodGet, "/v1/hosts/self", got.Key, nil)
	if self.Status != http.StatusOK || self.NodeID != got.NodeID || self.KeyID != got.KeyID || self.Owner != got.Owner || !self.ExpiresAt.Equal(got.ExpiresAt) || self.Key != "" {
		t.Errorf("self = %+v", self)
	}
	if r := w.call(http.MethodGet, "/v1/hosts/self", "dch_sandbox_"+got.KeyID+"_"+strings.Repeat("A", 43)+"_00000000", nil); !r.refused(401, "unauthorized") {
		t.Errorf("a key of which only the id is right is answered %+v", r)
	}
	if answer := w.connect(t, secret.New(got.Key)).register("r"); answer.Data["node_id"] != got.NodeID {
		t.Errorf("it registers as %v, not %s", answer.Data["node_id"], got.NodeID)
	}

	// Again, as after an answer that was lost.
	again := w.enrol(access, "install-1")
	if again.NodeID != got.NodeID || again.Key == got.Key || again.KeyID == got.KeyID || !w.good(again.Key) {
		t.Errorf("again: %+v", again)
	}
	if r := w.call(http.MethodGet, "/v1/hosts/self", got.Key, nil); !r.refused(401, "key_revoked") {
		t.Errorf("the key before is answered %+v", r)
	}
	if other := w.enrol(access, "install-2"); other.NodeID == got.NodeID || !w.good(again.Key) {
		t.Errorf("another installation got %+v", other)
	}
	// Another account's host is another node, though it says the same.
	bob, _ := w.tokens(1, "openid host:enroll")
	if other := w.enrol(bob, "install-1"); other.NodeID == got.NodeID || other.Owner.Email != "bob@example.com" || !w.good(again.Key) {
		t.Errorf("another account got %+v", other)
	}
	if r := w.enrol(bob, "install-9", "replace_node_id", got.NodeID); !r.refused(404, "not_found") || !w.good(again.Key) {
		t.Errorf("taking over another account's node is answered %+v", r)
	}
	if r := w.enrol(access, "install-9", "replace_node_id", got.NodeID); r.NodeID != got.NodeID || w.good(again.Key) {
		t.Errorf("a machine that was set up anew got %+v", r)
	}
}

func TestEnrolRefuses(t *testing.T) {
	w := startWithPeople(t, backend.Options{})
	access, id := w.tokens(0, "openid profile email host:enroll")
	scopeless, _ := w.tokens(0, "openid profile email")
	key := w.IssueKey().Reveal()
	for _, tt := range []struct {
		name, bearer string
		status       int
		code         string
	}{
		{"nothing", "", 401, "unauthorized"},
		{"junk", "a.b.c", 401, "unauthorized"},
		{"an ID token", id, 401, "unauthorized"},
		{"a token that was changed", access[:len(access)-10] + "AAAAAAAAAA", 401, "unauthorized"},
		{"a host key", key, 401, "unauthorized"},
		{"an unknown enrolment token", "dce_" + strings.Repeat("A", 43), 401, "unauthorized"},
		{"a token without the scope", scopeless, 403, "insufficient_scope"},
	} {
		if got := w.enrol(tt.bearer, "install"); !got.refused(tt.status, tt.code) {
			t.Errorf("%s is answered %+v", tt.name, got)
		}
	}
	const good = `{"install_id":"i","hostname":"h","os":"linux","arch":"amd64","agent_version":"1","hardware":""}`
	for name, tt := range map[string]struct {
		body    string
		headers []string
	}{
		"no JSON":             {"hello", nil},
		"more JSON":           {good + good, nil},
		"an unknown field":    {strings.Replace(good, "{", `{"admin":true,`, 1), nil},
		"a wrong type":        {strings.Replace(good, `"linux"`, "7", 1), nil},
		"no install id":       {strings.Replace(good, `"i"`, `""`, 1), nil},
		"a strange id":        {strings.Replace(good, `"i"`, `"a/b"`, 1), []string{"Idempotency-Key", "a/b"}},
		"no system":           {strings.Replace(good, `"linux"`, `""`, 1), nil},
		"a long host name":    {strings.Replace(good, `"h"`, `"`+strings.Repeat("h", 254)+`"`, 1), nil},
		"too much":            {good + strings.Repeat(" ", 1<<20), nil},
		"another idempotency": {good, []string{"Idempotency-Key", "j"}},
		"a form":              {good, []string{"Content-Type", "application/x-www-form-urlencoded"}},
	} {
		headers := append([]string{"Idempotency-Key", "i"}, tt.headers...)
		if got := w.call(http.MethodPost, "/v1/hosts", access, []byte(tt.body), headers...); !got.refused(400, "invalid_request") {
			t.Errorf("%s: answered %+v", name, got)
		}
	}
	if got := w.call(http.MethodPost, "/v1/hosts", access, []byte(good), "Idempotency-Key", "i"); got.Status != 201 {
		t.Errorf("the good one is answered %+v", got)
	}

	alone := withPeople{start(t, backend.Options{}), nil, t}
	if got := alone.enrol(access, "install"); !got.refused(401, "unauthorized") {
		t.Errorf("where nobody signs in: %+v", got)
	}
}

func TestEnrolmentToken(t *testing.T) {
	w := startWithPeople(t, backend.Options{})
	once := w.IssueEnrolmentToken(0, 0).Reveal()
	if !regexp.MustCompile(`^dce_[\w-]{43}$`).MatchString(once) {
		t.Error("a token of another shape")
	}
	first := w.enrol(once, "install-1")
	if first.Status != 201 || first.Owner.Email != "ada@example.com" {
		t.Fatalf("answer = %+v", first)
	}
	// The answer may have been lost: the same host may ask again, another may not.
	if again := w.enrol(once, "install-1"); again.NodeID != first.NodeID || w.good(first.Key) || !w.good(again.Key) {
		t.Errorf("again: %+v", again)
	}
	if other := w.enrol(once, "install-2"); !other.refused(401, "unauthorized") {
		t.Errorf("a second host with it: %+v", other)
	}
	twice := w.IssueEnrolmentToken(2, time.Minute).Reveal()
	a, b, c := w.enrol(twice, "a"), w.enrol(twice, "b"), w.enrol(twice, "c")
	if a.Status != 201 || b.Status != 201 || a.NodeID == b.NodeID || c.Status != 401 {
		t.Errorf("three hosts with a token for two: %d, %d, %d", a.Status, b.Status, c.Status)
	}
	late := w.IssueEnrolmentToken(1, time.Nanosecond).Reveal()
	if got := w.enrol(late, "install-3"); !got.refused(401, "unauthorized") {
		t.Errorf("after its time: %+v", got)
	}
	// Signed in by the token's owner, the same installation is the same node.
	if got := w.enrol(w.access(), "install-1"); got.NodeID != first.NodeID {
		t.Errorf("its owner got %+v", got)
	}
}

func TestRotate(t *testing.T) {
	w := startWithPeople(t, backend.Options{})
	first := w.enrol(w.access(), "install")
	keys := "/v1/hosts/" + first.NodeID + "/keys"
	lost := w.call(http.MethodPost, keys, first.Key, nil)
	second := w.call(http.MethodPost, keys, first.Key, nil)
	if second.Status != 201 || second.NodeID != first.NodeID || second.Key == first.Key || second.KeyID == first.KeyID || second.Owner.Email != "ada@example.com" {
		t.Fatalf("answer = %+v", second)
	}
	if w.good(lost.Key) {
		t.Error("the key of an answer that was lost is good")
	}
	for range 2 {
		if !w.good(first.Key) {
			t.Error("the old key is void before the new one was used")
		}
	}
	c := w.connect(t, secret.New(first.Key))
	c.register("r")
	if !w.good(second.Key) {
		t.Error("the new key is not good")
	}
	if r := w.call(http.MethodGet, "/v1/hosts/self", first.Key, nil); !r.refused(401, "key_revoked") {
		t.Errorf("after the first use of the new one the old key is answered %+v", r)
	}
	if r := w.call(http.MethodPost, keys, first.Key, nil); !r.refused(401, "key_revoked") {
		t.Errorf("rotating with it: %+v", r)
	}
	if answer := w.connect(t, secret.New(second.Key)).register("r"); answer.Data["node_id"] != first.NodeID {
		t.Errorf("the new key is node %v's", answer.Data["node_id"])
	}
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, protocol.CloseReplaced) {
		t.Errorf("the old key's connection ended with %v", err)
	}
	if r := w.call(http.MethodPost, "/v1/hosts/another/keys", second.Key, nil); !r.refused(404, "not_found") {
		t.Errorf("rotating another node's key: %+v", r)
	}
}

func TestRevoke(t *testing.T) {
	w := startWithPeople(t, backend.Options{})
	access := w.access()
	first, other := w.enrol(access, "install"), w.enrol(access, "other")
	keys := "/v1/hosts/" + first.NodeID + "/keys/"
	if r := w.call(http.MethodDelete, keys+other.KeyID, first.Key, nil); !r.refused(404, "not_found") {
		t.Errorf("revoking another key: %+v", r)
	}
	if r := w.call(http.MethodDelete, keys+first.KeyID, other.Key, nil); !r.refused(404, "not_found") {
		t.Errorf("revoking with another key: %+v", r)
	}
	pending := w.call(http.MethodPost, strings.TrimSuffix(keys, "/"), first.Key, nil)
	c := w.connect(t, secret.New(first.Key))
	c.register("r")
	if r := w.call(http.MethodDelete, keys+first.KeyID, first.Key, nil); r.Status != http.StatusNoContent {
		t.Errorf("revoking: %+v", r)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, protocol.CloseSignedOut) {
		t.Errorf("the connection ended with %v, not 4401", err)
	}
	_, response, err := w.dial(t.Context(), secret.New(first.Key))
	if err == nil || response == nil || response.StatusCode != 401 || response.Header.Get("WWW-Authenticate") != `Bearer realm="distributedcompute"` {
		t.Errorf("connecting with it is answered %v, %v", response, err)
	}
	if r := w.call(http.MethodDelete, keys+first.KeyID, first.Key, nil); !r.refused(401, "key_revoked") {
		t.Errorf("revoking again: %+v", r)
	}
	if w.good(pending.Key) {
		t.Error("the key that was to come in its place is good")
	}
	if !w.good(other.Key) {
		t.Error("another node's key went with it")
	}
	if _, known := w.Node(first.NodeID); known {
		t.Error("a node that has signed out is listed")
	}
	back := w.enrol(access, "install")
	if _, known := w.Node(first.NodeID); back.NodeID != first.NodeID || !known {
		t.Errorf("signed in again it is %+v", back)
	}
}

// Who takes a node over by signing in ends the connection that was there, with a key that is void.
func TestEnrollingAgainEndsTheConnection(t *testing.T) {
	w := startWithPeople(t, backend.Options{})
	access := w.access()
	c := w.connect(t, secret.New(w.enrol(access, "install").Key))
	c.register("r")
	w.enrol(access, "install")
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, protocol.CloseSignedOut) {
		t.Errorf("the connection ended with %v", err)
	}
}

func TestKeysExpire(t *testing.T) {
	w := startWithPeople(t, backend.Options{KeyLifetime: time.Nanosecond})
	got := w.enrol(w.access(), "install")
	if r := w.call(http.MethodGet, "/v1/hosts/self", got.Key, nil); !r.refused(401, "key_expired") {
		t.Errorf("after its time a key is answered %+v", r)
	}
}

func TestBan(t *testing.T) {
	w := startWithPeople(t, backend.Options{})
	access := w.access()
	first := w.enrol(access, "install")
	c := w.connect(t, secret.New(first.Key))
	c.register("r")
	bob, _ := w.tokens(1, "openid host:enroll")

	w.Ban("ada@example.com", backend.NotAllowed)
	if r := w.enrol(access, "install-2"); !r.refused(403, "not_allowed") {
		t.Errorf("not allowed to host: %+v", r)
	}
	if !w.good(first.Key) {
		t.Error("the host that was there was sent away")
	}
	w.Ban("ada@example.com", protocol.HostSuspended)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
		t.Errorf("the connection of a suspended host ended with %v", err)
	}
	if _, response, err := w.dial(t.Context(), secret.New(first.Key)); err == nil || response == nil || response.StatusCode != 403 {
		t.Errorf("connecting: %v, %v", response, err)
	}
	if r := w.call(http.MethodGet, "/v1/hosts/self", first.Key, nil); !r.refused(403, "host_suspended") {
		t.Errorf("a suspended host's key is answered %+v", r)
	}
	if r := w.enrol(access, "install"); !r.refused(403, "host_suspended") {
		t.Errorf("enrolling: %+v", r)
	}
	if r := w.enrol(bob, "install"); r.Status != 201 {
		t.Errorf("another account: %+v", r)
	}
	w.Ban("ada@example.com", "")
	w.connect(t, secret.New(first.Key)).register("r")
}

// The agent's own client, all the way and back.
func TestAgentsClient(t *testing.T) {
	w := startWithPeople(t, backend.Options{})
	client, err := signin.New(signin.Options{Issuer: w.people.Issuer(), ClientID: w.people.ClientID(), API: w.api(), CAPEM: w.authority.PEM(), Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	host := signin.Host{InstallID: "install", Hostname: "tower", OS: "linux", Arch: "amd64", AgentVersion: "1.0.0"}
	pages := make(chan string, 1)
	began := time.Now()
	got, err := client.Browser(within(t), host, func(p signin.Prompt) {
		go func() {
			page, err := w.people.Visit(context.WithoutCancel(t.Context()), p.URL, w.people.Users()[0], true)
			if err != nil {
				page = err.Error()
			}
			pages <- page
		}()
	})
	if err != nil || got.Owner != "ada@example.com" {
		t.Fatalf("signing in gave %+v, %v", got, err)
	}
	t.Logf("signed in after %s", time.Since(began))
	if page := <-pages; !strings.Contains(page, "ada@example.com") {
		t.Errorf("the person ends at %s", page)
	}
	self, err := client.Self(within(t), got.Key)
	if err != nil || self.NodeID != got.NodeID || self.KeyID != got.KeyID {
		t.Errorf("self = %+v, %v", self, err)
	}
	rotated, err := client.Rotate(within(t), got.NodeID, got.Key)
	if err != nil || rotated.Key.Equal(got.Key) || rotated.NodeID != got.NodeID {
		t.Errorf("rotating gave %+v, %v", rotated, err)
	}
	if err := client.Revoke(within(t), rotated.NodeID, rotated.KeyID, rotated.Key); err != nil {
		t.Errorf("revoking: %v", err)
	}
	_, err = client.Self(within(t), rotated.Key)
	if no, ok := errors.AsType[*signin.Refusal](err); !ok || no.Status != 401 || no.Code != "key_revoked" {
		t.Errorf("a revoked key: %v", err)
	}
	if got, err := client.Enrol(within(t), host, w.IssueEnrolmentToken(1, time.Minute)); err != nil || got.NodeID != self.NodeID {
		t.Errorf("with an enrolment token: %+v, %v", got, err)
	}
	if got, err := client.Enrol(within(t), host, secret.New("dce_"+rand.Text())); err == nil {
		t.Errorf("with a made up one: %+v", got)
	}
	// Somebody else signs in on the same host, who does not have its node.
	host.ReplaceNodeID = got.NodeID
	other, err := client.Browser(within(t), host, func(p signin.Prompt) {
		go func() {
			if _, err := w.people.Visit(context.WithoutCancel(t.Context()), p.URL, w.people.Users()[1], true); err != nil {
				t.Error(err)
			}
		}()
	})
	if err != nil || other.Owner != "bob@example.com" || other.NodeID == got.NodeID {
		t.Errorf("another account: %+v, %v", other, err)
	}
}

// By a code it takes the agent's client 5 s, which is the provider's pace.
func TestAgentsClientByCode(t *testing.T) {
	w := startWithPeople(t, backend.Options{})
	for _, allow := range []bool{true, false} {
		t.Run(fmt.Sprintf("allowed %t", allow), func(t *testing.T) {
			t.Parallel()
			client, err := signin.New(signin.Options{Issuer: w.people.Issuer(), ClientID: w.people.ClientID(), API: w.api(), CAPEM: w.authority.PEM()})
			if err != nil {
				t.Fatal(err)
			}
			host := signin.Host{InstallID: fmt.Sprintf("install-%t", allow), OS: "linux", Arch: "amd64", AgentVersion: "1.0.0"}
			got, err := client.Device(within(t), host, func(p signin.Prompt) {
				go func() {
					if page, err := w.people.Visit(context.WithoutCancel(t.Context()), p.URL, w.people.Users()[1], allow); err != nil || !strings.Contains(page, "close this tab") {
						t.Errorf("the person ends at %s, %v", page, err)
					}
				}()
			})
			if allow && (err != nil || got.Owner != "bob@example.com") || !allow && (err == nil || !strings.Contains(err.Error(), "declined")) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestDashboard(t *testing.T) {
	w := startWithPeople(t, backend.Options{})
	got := w.enrol(w.access(), "install", "hostname", "<tower>")
	w.connect(t, secret.New(got.Key)).register("r")
	page := func(host string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.Dashboard(), nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = host
		response, err := w.client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(text)
	}
	status, text := page("")
	for _, want := range []string{"ada@example.com", got.NodeID, "&lt;tower&gt;", "0.00 USD", "connecting"} {
		if status != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("answered %d without %q: %s", status, want, text)
		}
	}
	if status, _ := page("evil.example:443"); status != http.StatusForbidden {
		t.Errorf("by another name it is answered %d", status)
	}
}
