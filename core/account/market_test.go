package account_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

const clientID = "agent"

// market is a marketplace and its OpenID provider on a loopback port.
type market struct {
	*httptest.Server
	signer *rsa.PrivateKey

	mu      sync.Mutex
	seen    []string          // "METHOD /path"
	codes   map[string]string // authorization code → nonce
	hosts   int
	nodes   map[string]string // install id → node
	keys    map[string]*hostKey
	told    map[string]any // the body of the latest enrolment
	expires time.Duration  // of keys it gives; 0: never
	down    bool
	rotates func() (lost bool) // what happens while a key is exchanged; nil: nothing
}

type hostKey struct {
	id, node, refused string // refused: the code; "": good
	fixed             bool   // it is not exchanged
}

func openMarket(t *testing.T) *market {
	t.Helper()
	signer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	m := &market{signer: signer, codes: map[string]string{}, nodes: map[string]string{}, keys: map[string]*hostKey{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]any{
			"issuer": m.URL, "authorization_endpoint": m.URL + "/authorize", "token_endpoint": m.URL + "/token", "jwks_uri": m.URL + "/jwks",
			"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"RS256"}, "code_challenge_methods_supported": []string{"S256"},
		})
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]any{"keys": []any{map[string]string{"kty": "RSA", "alg": "RS256", "use": "sig", "n": encode(signer.N.Bytes()), "e": "AQAB"}}})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		reply(w, 200, map[string]any{"access_token": "access-token", "token_type": "Bearer", "expires_in": 60, "id_token": m.idToken(r.PostFormValue("code"))})
	})
	mux.HandleFunc("POST /v1/hosts", m.enrol)
	mux.HandleFunc("GET /v1/hosts/self", m.withKey(func(w http.ResponseWriter, _ *http.Request, key *hostKey) {
		reply(w, 200, map[string]any{"node_id": key.node, "key_id": key.id, "owner": map[string]string{"email": "ada@example.com"}})
	}))
	mux.HandleFunc("POST /v1/hosts/{node}/keys", m.rotate)
	mux.HandleFunc("DELETE /v1/hosts/{node}/keys/{key}", m.withKey(func(w http.ResponseWriter, r *http.Request, key *hostKey) {
		if r.PathValue("key") != key.id || r.PathValue("node") != key.node {
			refuse(w, 404, "not_found")
			return
		}
		key.refused = "key_revoked"
		w.WriteHeader(204)
	}))
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.seen = append(m.seen, r.Method+" "+r.URL.Path)
		if m.down {
			refuse(w, 400, "closed_today")
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="distributedcompute"`)
	reply(w, status, map[string]any{"error": map[string]string{"code": code, "message": "No, " + code + "."}})
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (m *market) idToken(code string) string {
	claims, _ := json.Marshal(map[string]any{
		"iss": m.URL, "sub": "u-1", "aud": clientID, "nonce": m.codes[code], "email": "ada@example.com",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	})
	text := encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	signature, _ := rsa.SignPKCS1v15(rand.Reader, m.signer, crypto.SHA256, sum[:])
	return text + "." + encode(signature)
}

func bearer(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

func (m *market) enrol(w http.ResponseWriter, r *http.Request) {
	if token := bearer(r); token != "access-token" && token != "dce_token" {
		refuse(w, 401, "unauthorized")
		return
	}
	m.told = map[string]any{}
	_ = json.NewDecoder(r.Body).Decode(&m.told)
	install := fmt.Sprint(m.told["install_id"])
	if m.nodes[install] == "" {
		m.hosts++
		m.nodes[install] = fmt.Sprintf("node-%d", m.hosts)
	}
	for _, key := range m.keys {
		if key.node == m.nodes[install] {
			key.refused = "key_revoked"
		}
	}
	m.give(w, m.nodes[install])
}

// give makes a key: "host-key-<n>" is k-<n>.
func (m *market) give(w http.ResponseWriter, node string) {
	n := len(m.keys) + 1
	key := &hostKey{id: fmt.Sprint("k-", n), node: node}
	m.keys[fmt.Sprint("host-key-", n)] = key
	body := map[string]any{"node_id": node, "host_api_key": fmt.Sprint("host-key-", n), "key_id": key.id, "owner": map[string]string{"email": "ada@example.com"}, "created_at": time.Now()}
	if m.expires != 0 {
		body["expires_at"] = time.Now().Add(m.expires).UTC().Format(time.RFC3339)
	}
	reply(w, 201, body)
}

func (m *market) withKey(serve func(http.ResponseWriter, *http.Request, *hostKey)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key := m.keys[bearer(r)]
		if key == nil {
			refuse(w, 401, "unauthorized")
			return
		}
		if key.refused != "" {
			refuse(w, 401, key.refused)
			return
		}
		serve(w, r, key)
	}
}

// rotate takes a key that has expired too.
func (m *market) rotate(w http.ResponseWriter, r *http.Request) {
	key := m.keys[bearer(r)]
	if key == nil || key.node != r.PathValue("node") || key.refused != "" && key.refused != "key_expired" {
		refuse(w, 401, "unauthorized")
		return
	}
	if key.fixed {
		refuse(w, 403, "not_allowed")
		return
	}
	if m.rotates != nil && m.rotates() {
		m.give(httptest.NewRecorder(), key.node)
		w.Header().Set("Retry-After", "60") // which nobody waits for
		w.WriteHeader(503)
		return
	}
	m.give(w, key.node)
}

// visit is a person who signs in where the prompt leads, in a browser on this machine.
func (m *market) visit(t *testing.T, prompt string) {
	t.Helper()
	page, err := url.Parse(prompt)
	if err != nil || !strings.HasPrefix(prompt, m.URL+"/authorize?") {
		t.Fatalf("sent to %q (%v)", prompt, err)
	}
	asked := page.Query()
	code := rand.Text()
	m.mu.Lock()
	m.codes[code] = asked.Get("nonce")
	m.mu.Unlock()
	answer, err := http.Get(asked.Get("redirect_uri") + "?" + url.Values{"code": {code}, "state": {asked.Get("state")}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
}

// with looks at the market or changes it.
func (m *market) with(do func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	do()
}

// count is how often something was asked.
func (m *market) count(request string) (n int) {
	m.with(func() {
		for _, seen := range m.seen {
			if seen == request {
				n++
			}
		}
	})
	return n
}
