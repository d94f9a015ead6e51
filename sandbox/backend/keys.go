package backend

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/secret"
)

// IssueKey makes a host key. The node that uses it keeps one id for good.
func (b *Backend) IssueKey() secret.String {
	key := "dc_host_" + rand.Text()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes[key] = &node{id: uuid.NewString()}
	return secret.New(key)
}

// Expire makes a host key unknown: its node is cut off and answered 401 from now on.
func (b *Backend) Expire(key secret.String) {
	if open := b.setExpired(key, true); open != nil {
		open.cut(closePolicyViolation)
	}
}

// Restore undoes Expire: the key is good again, and is the same node's.
func (b *Backend) Restore(key secret.String) {
	b.setExpired(key, false)
}

// setExpired returns the node's open connection, nil if it has none.
func (b *Backend) setExpired(key secret.String, expired bool) *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	node, ok := b.nodes[key.Reveal()]
	if !ok {
		return nil
	}
	node.expired = expired
	return node.session
}

// Intercept gives every new connection to h, in place of the backend, until it is called with nil:
// an overload, a captive portal, whatever answers on the way.
func (b *Backend) Intercept(h http.Handler) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.intercept = h
}

// admit finds the node whose key a request carries.
func (b *Backend) admit(r *http.Request) (*node, bool) {
	key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	b.mu.Lock()
	defer b.mu.Unlock()
	node, known := b.nodes[key]
	return node, ok && known && !node.expired
}

// refuse answers 401 with the backend's own error body, by which agents tell it from a portal's.
func refuse(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	_ = json.NewEncoder(w).Encode(map[string]protocol.Error{"error": {
		Code:    "unauthorized",
		Message: "This host key is not known, or no longer good. Sign in again.",
	}})
}
