package backend

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/secret"
)

const (
	keyPrefix  = "dch_sandbox_"
	signInText = "This host key is not known, or no longer good. Sign in again."
)

// hostKey is what is kept of a host key, which is not the key. Backend.mu guards it.
type hostKey struct {
	id      string
	node    *node
	hash    [sha256.Size]byte
	issued  time.Time
	expires time.Time // zero: never
	unknown bool      // made so by Expire
	revoked bool
	// replaces is the key in whose place this one comes with its first use; nil: it has come, or there was none.
	replaces *hostKey
	// until is how long this one is good beside the one that replaces it; zero: none does.
	until time.Time
}

// IssueKey makes a host key without anybody signing in. The node that uses it keeps one id for good.
func (b *Backend) IssueKey() secret.String {
	b.mu.Lock()
	defer b.mu.Unlock()
	key, _ := b.newKey(b.newNode(b.options.Owner))
	return key
}

// newNode needs mu held.
func (b *Backend) newNode(owner Owner) *node {
	n := &node{id: uuid.NewString(), owner: owner}
	b.nodes[n.id] = n
	return n
}

// newKey makes a node's key: dch_sandbox_<key id>_<secret>_<checksum>, by which scanners of source code
// know it. It needs mu held.
func (b *Backend) newKey(n *node) (secret.String, *hostKey) {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	id := strings.ToLower(rand.Text()[:12])
	text := keyPrefix + id + "_" + base64.RawURLEncoding.EncodeToString(random[:])
	text += fmt.Sprintf("_%08x", crc32.ChecksumIEEE([]byte(text)))
	key := &hostKey{id: id, node: n, hash: sha256.Sum256([]byte(text)), issued: time.Now().UTC()}
	if b.options.KeyLifetime > 0 {
		key.expires = key.issued.Add(b.options.KeyLifetime)
	}
	b.keys[id] = key
	n.expired = false
	return secret.New(text), key
}

// Expire makes a host key unknown: its node is sent away and answered 401 from now on.
func (b *Backend) Expire(key secret.String) {
	b.setUnknown(key, true)
}

// Restore undoes Expire: the key is good again, and is the same node's.
func (b *Backend) Restore(key secret.String) {
	b.setUnknown(key, false)
}

// ExpireAll makes every host key unknown, as Expire does with one.
func (b *Backend) ExpireAll() { b.setAllUnknown(true) }

// RestoreAll undoes ExpireAll and every Expire.
func (b *Backend) RestoreAll() { b.setAllUnknown(false) }

func (b *Backend) setAllUnknown(unknown bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range b.keys {
		key.unknown = unknown
	}
	for _, n := range b.nodes {
		b.settle(n)
	}
}

func (b *Backend) setUnknown(text secret.String, unknown bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if key := b.find(text.Reveal()); key != nil {
		key.unknown = unknown
		b.settle(key.node)
	}
}

// find needs mu held; nil for a key that was never given.
func (b *Backend) find(text string) *hostKey {
	id, _, _ := strings.Cut(strings.TrimPrefix(text, keyPrefix), "_")
	key := b.keys[id]
	hash := sha256.Sum256([]byte(text))
	if key == nil || subtle.ConstantTimeCompare(key.hash[:], hash[:]) != 1 {
		return nil
	}
	return key
}

// void revokes those keys of a node for which that is true; settle comes after it. It needs mu held.
func (b *Backend) void(n *node, which func(*hostKey) bool) {
	for _, key := range b.keys {
		if key.node == n && which(key) {
			key.revoked = true
		}
	}
}

// settle sees to what follows when a key of a node has changed: a connection that was opened with one
// which is not good any more is closed. It needs mu held.
func (b *Backend) settle(n *node) {
	n.expired = true
	for _, key := range b.keys {
		if key.node == n && !key.unknown && !key.revoked {
			n.expired = false
		}
	}
	if s := n.session; s != nil && (s.key.unknown || s.key.revoked) && b.server != nil {
		b.sessions.Go(func() { s.dismiss(protocol.CloseSignedOut, "the host key was revoked") })
	}
}

// refusal is an answer that says no.
type refusal struct {
	status int
	protocol.Error
}

func unauthorized(code, message string) *refusal {
	return &refusal{http.StatusUnauthorized, protocol.Error{Code: protocol.ErrorCode(code), Message: message}}
}

// check is nil for a key that is good; it needs mu held.
func (b *Backend) check(key *hostKey) *refusal {
	now := time.Now()
	switch {
	case key == nil || key.unknown:
		return unauthorized(protocol.Unauthorized, signInText)
	case key.revoked || !key.until.IsZero() && now.After(key.until):
		return unauthorized(protocol.KeyRevoked, "This host key was revoked. Sign in again.")
	case !key.expires.IsZero() && now.After(key.expires):
		return unauthorized(protocol.KeyExpired, "This host key has expired. Sign in again.")
	case b.bans[key.node.owner.Email] == protocol.HostSuspended:
		return banned(protocol.HostSuspended)
	}
	return nil
}

// admit finds the host key that a request carries. Its first use ends the time of the one before it.
func (b *Backend) admit(r *http.Request) (*hostKey, *refusal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := b.find(bearer(r))
	if no := b.check(key); no != nil {
		return nil, no
	}
	if older := key.replaces; older != nil {
		// Its connection is not closed for this: the node's next one, which has this key, takes its place.
		older.revoked, key.replaces = true, nil
	}
	return key, nil
}

// bearer is what a request is authorized by; "" if it says nothing that can be read.
func bearer(r *http.Request) string {
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return text
}

// Intercept gives every new request to h, in place of the backend, until it is called with nil:
// an overload, a captive portal, whatever answers on the way.
func (b *Backend) Intercept(h http.Handler) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.intercept = h
}

func (b *Backend) intercepted(own http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		h := b.intercept
		b.mu.Unlock()
		if h == nil {
			h = own
		}
		h.ServeHTTP(w, r)
	})
}

// refuse answers with the backend's own error body, by which agents tell it from a portal's.
func refuse(w http.ResponseWriter, no *refusal) {
	if no.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="distributedcompute"`)
	}
	answer(w, no.status, map[string]protocol.Error{"error": no.Error})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
