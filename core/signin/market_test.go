package signin

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	clientID    = "host-agent"
	accessToken = "canary-access-token-4711"
	hostKey     = "canary-host-key-0815"
)

// signer is the provider's key; making one takes a while.
var signer = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// script is how a market departs from what is right. nil: not.
type script struct {
	discovery func(map[string]any) // changes the document
	discover  http.HandlerFunc     // instead of the document
	authorize func(back url.Values)
	exchange  http.HandlerFunc     // instead of the token endpoint, after its checks
	token     func(map[string]any) // changes its answer
	claims    func(map[string]any) // of the ID token
	sign      func(claims map[string]any) string
	keys      http.HandlerFunc
	device    func(map[string]any)         // changes the answer to a device
	poll      func(try int) (error string) // "": agreed
	hosts     http.HandlerFunc             // instead of the API
}

// market is an OpenID provider and a hosts API on one TLS server, careful unless its script says
// otherwise.
type market struct {
	*httptest.Server
	t  *testing.T
	do script

	mu       sync.Mutex
	grants   map[string]url.Values // code → the request it answers
	askedFor url.Values            // the last authorization request
	tokens   int                   // requests of the token endpoint
	calls    []call                // of the API
}

type call struct {
	method, path, bearer, idempotencyKey string
	body                                 map[string]any
}

func open(t *testing.T, do script) *market {
	t.Helper()
	m := &market{t: t, do: do, grants: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", m.discovery)
	mux.HandleFunc("GET /authorize", m.authorize)
	mux.HandleFunc("POST /token", m.token)
	mux.HandleFunc("POST /device", m.device)
	mux.HandleFunc("GET /keys", m.keys)
	mux.HandleFunc("/v1/", m.hosts)
	m.Server = httptest.NewUnstartedServer(mux)
	m.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	m.EnableHTTP2 = true
	m.StartTLS()
	t.Cleanup(m.Close)
	return m
}

func (m *market) discovery(w http.ResponseWriter, r *http.Request) {
	if m.do.discover != nil {
		m.do.discover(w, r)
		return
	}
	document := map[string]any{
		"issuer": m.URL, "authorization_endpoint": m.URL + "/authorize", "token_endpoint": m.URL + "/token",
		"jwks_uri": m.URL + "/keys", "device_authorization_endpoint": m.URL + "/device",
		"code_challenge_methods_supported": []string{"S256"}, "id_token_signing_alg_values_supported": []string{"RS256", "RS512", "HS256", "none"},
		"authorization_response_iss_parameter_supported": true,
	}
	if m.do.discovery != nil {
		m.do.discovery(document)
	}
	answerJSON(w, http.StatusOK, document)
}

// loopbackCallback is what a provider that follows RFC 8252 takes for http://127.0.0.1/callback.
var loopbackCallback = regexp.MustCompile(`^http://127\.0\.0\.1:[0-9]+/callback$`)

func (m *market) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != clientID || !loopbackCallback.MatchString(q.Get("redirect_uri")) || q.Get("response_type") != "code" ||
		q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || q.Get("state") == "" {
		http.Error(w, "mismatch", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	m.mu.Lock()
	m.grants[code], m.askedFor = q, q
	m.mu.Unlock()
	back := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {m.URL}}
	if m.do.authorize != nil {
		m.do.authorize(back)
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

func (m *market) token(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.tokens++
	try := m.tokens
	grant := m.grants[r.PostFormValue("code")]
	delete(m.grants, r.PostFormValue("code"))
	m.mu.Unlock()
	if r.Header.Get("Authorization") != "" || r.PostFormValue("client_id") != clientID {
		answerJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	if m.do.exchange != nil {
		m.do.exchange(w, r)
		return
	}
	if r.PostFormValue("grant_type") == "urn:ietf:params:oauth:grant-type:device_code" {
		if e := m.do.poll(try); e != "" {
			status := http.StatusBadRequest
			if e == "temporarily_unavailable" {
				status = http.StatusServiceUnavailable
			}
			answerJSON(w, status, map[string]any{"error": e})
			return
		}
	} else {
		challenge := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		if grant == nil || r.PostFormValue("redirect_uri") != grant.Get("redirect_uri") || base64.RawURLEncoding.EncodeToString(challenge[:]) != grant.Get("code_challenge") {
			answerJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
			return
		}
	}
	claims := map[string]any{
		"iss": m.URL, "aud": clientID, "sub": "user_1", "email": "ada@example.com",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	if nonce := grant.Get("nonce"); nonce != "" {
		claims["nonce"] = nonce
	}
	if m.do.claims != nil {
		m.do.claims(claims)
	}
	sign := rs256
	if m.do.sign != nil {
		sign = m.do.sign
	}
	answer := map[string]any{"access_token": accessToken, "token_type": "bearer", "expires_in": 3600, "id_token": sign(claims)}
	if m.do.token != nil {
		m.do.token(answer)
	}
	answerJSON(w, http.StatusOK, answer)
}

func (m *market) device(w http.ResponseWriter, r *http.Request) {
	if r.PostFormValue("client_id") != clientID {
		answerJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	answer := map[string]any{
		"device_code": "canary-device-code", "user_code": "WDJB-MJHT", "verification_uri": m.URL + "/activate",
		"verification_uri_complete": m.URL + "/activate?user_code=WDJB-MJHT", "expires_in": 600, "interval": 1,
	}
	if m.do.device != nil {
		m.do.device(answer)
	}
	status := http.StatusOK
	if answer["error"] != nil {
		status = http.StatusBadRequest
	}
	answerJSON(w, status, answer)
}

func (m *market) keys(w http.ResponseWriter, r *http.Request) {
	if m.do.keys != nil {
		m.do.keys(w, r)
		return
	}
	answerJSON(w, http.StatusOK, publicKey("RS256"))
}

// publicKey is the signer's, for one algorithm; "": for all that an RSA key is good for.
func publicKey(alg string) any {
	encode := base64.RawURLEncoding.EncodeToString
	key := map[string]any{"kty": "RSA", "use": "sig", "kid": "1", "n": encode(signer().N.Bytes()), "e": encode(big.NewInt(int64(signer().E)).Bytes())}
	if alg != "" {
		key["alg"] = alg
	}
	return map[string]any{"keys": []any{key}}
}

func (m *market) hosts(w http.ResponseWriter, r *http.Request) {
	c := call{method: r.Method, path: r.URL.Path, idempotencyKey: r.Header.Get("Idempotency-Key")}
	c.bearer, _ = strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	_ = json.NewDecoder(r.Body).Decode(&c.body)
	m.mu.Lock()
	m.calls = append(m.calls, c)
	m.mu.Unlock()
	if m.do.hosts != nil {
		m.do.hosts(w, r)
		return
	}
	answerJSON(w, http.StatusCreated, credential())
}

// called returns the calls of the API so far.
func (m *market) called() []call {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]call(nil), m.calls...)
}

func (m *market) exchanges() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tokens
}

func (m *market) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.Certificate().Raw})
}

// client is a Client of the market that waits for nothing longer than a test may.
func (m *market) client(t *testing.T, change func(*Options)) *Client {
	t.Helper()
	o := Options{Issuer: m.URL, ClientID: clientID, API: m.URL, CAPEM: m.pem(), Version: "1.2.3"}
	if change != nil {
		change(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	c.times.retry = 5 * time.Millisecond
	c.times.poll = time.Second
	return c
}

// credential is an answer with a host key.
func credential() map[string]any {
	return map[string]any{
		"node_id": "node-1", "host_api_key": hostKey, "key_id": "key-1",
		"owner": map[string]any{"email": "ada@example.com"}, "created_at": "2026-11-24T00:00:00Z",
	}
}

func answerJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// says makes a handler that says the same every time.
func says(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// refuses makes a handler that says no as the API does.
func refuses(status int, code, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="distributedcompute"`)
		}
		answerJSON(w, status, map[string]any{"error": map[string]any{"code": code, "message": message}})
	}
}

// hangsUp breaks the connection off, as a server does that dies.
func hangsUp(w http.ResponseWriter, _ *http.Request) {
	panic(http.ErrAbortHandler)
}

// hangs answers nothing until the client gives up.
func hangs(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func rs256(claims map[string]any) string { return signWith(signer(), "RS256", crypto.SHA256, claims) }

func signWith(key *rsa.PrivateKey, alg string, hash crypto.Hash, claims map[string]any) string {
	input := jwtInput(map[string]any{"alg": alg, "kid": "1", "typ": "JWT"}, claims)
	digest := hash.New()
	digest.Write([]byte(input))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, hash, digest.Sum(nil))
	if err != nil {
		panic(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func jwtInput(header, claims map[string]any) string {
	var parts [2]string
	for i, part := range []map[string]any{header, claims} {
		text, err := json.Marshal(part)
		if err != nil {
			panic(err)
		}
		parts[i] = base64.RawURLEncoding.EncodeToString(text)
	}
	return parts[0] + "." + parts[1]
}

// browse is a browser that trusts the market: it goes to an address, follows redirects with cookies,
// and returns the last page.
func (m *market) browse(ctx context.Context, address string) (visited, error) {
	pool := x509.NewCertPool()
	pool.AddCert(m.Certificate())
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	return visit(ctx, &client, address)
}

type visited struct {
	url    *url.URL
	status int
	header http.Header
	text   string
}

func visit(ctx context.Context, client *http.Client, address string) (visited, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return visited{}, err
	}
	res, err := client.Do(req)
	if err != nil {
		return visited{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return visited{res.Request.URL, res.StatusCode, res.Header, string(body)}, err
}

// result is how a sign-in ended, for both sides.
type result struct {
	credential Credential
	err        error
	page       visited
	pageErr    error
}

// signIn signs in by browser; drive is what the person does, nil: nothing but signing in.
func (m *market) signIn(t *testing.T, c *Client, drive func(Prompt) (visited, error)) result {
	t.Helper()
	if drive == nil {
		drive = func(p Prompt) (visited, error) { return m.browse(t.Context(), p.URL) }
	}
	var r result
	var driving sync.WaitGroup
	r.credential, r.err = c.Browser(t.Context(), someHost(), func(p Prompt) {
		driving.Go(func() { r.page, r.pageErr = drive(p) })
	})
	driving.Wait()
	return r
}

func someHost() Host {
	return Host{InstallID: "install-1", Hostname: "rig <1>", OS: "linux", Arch: "amd64", Hardware: "1 GPU"}
}

// redirect is where a prompt's address makes the browser return to.
func redirect(t *testing.T, p Prompt) (callback, state string) {
	t.Helper()
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("redirect_uri"), u.Query().Get("state")
}

// portOf is the host and port of an address.
func portOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func refusesConnections(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		conn.Close()
	}
	return err != nil
}
