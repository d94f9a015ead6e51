package backend

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/sandbox/identity"
)

const (
	// NotAllowed is the code by which an account is kept from enrolling hosts.
	NotAllowed = "not_allowed"

	invalidRequest    = "invalid_request"
	notFound          = "not_found"
	insufficientScope = "insufficient_scope"

	enrolPrefix = "dce_"
	maxHostBody = 16 << 10
	hostWithin  = 10 * time.Second // for a request to arrive
	// overlap is how long a key is good beside its successor that nobody has used.
	overlap = 10 * time.Minute
)

// Owner is somebody whose hosts are rented.
type Owner struct {
	ID    string `json:"-"`
	Email string `json:"email"`
}

// host is what a host says of itself when it enrols.
type host struct {
	InstallID     string `json:"install_id"`
	Hostname      string `json:"hostname"`
	OS            string `json:"os"`
	Arch          string `json:"arch"`
	AgentVersion  string `json:"agent_version"`
	Hardware      string `json:"hardware"` // for people
	ReplaceNodeID string `json:"replace_node_id,omitempty"`
}

// standing is what a host key stands for.
type standing struct {
	NodeID    string    `json:"node_id"`
	KeyID     string    `json:"key_id"`
	Owner     Owner     `json:"owner"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// credential is a host key on its way to its host.
type credential struct {
	HostAPIKey string `json:"host_api_key"`
	standing
	CreatedAt time.Time `json:"created_at"`
}

// enrolment is what is kept of an enrolment token. Backend.mu guards it.
type enrolment struct {
	owner   Owner
	uses    int
	expires time.Time
	hosts   map[string]bool // install ids that it was used for
}

// IssueEnrolmentToken makes a token by which unattended hosts of Options.Owner enrol: as many as uses, 0 is
// one, within ttl, 0 is an hour. A host that enrols again with it is not counted again.
func (b *Backend) IssueEnrolmentToken(uses int, ttl time.Duration) secret.String {
	if uses == 0 {
		uses = 1
	}
	if ttl == 0 {
		ttl = time.Hour
	}
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	text := enrolPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	b.mu.Lock()
	defer b.mu.Unlock()
	b.enrolments[sha256.Sum256([]byte(text))] = &enrolment{b.options.Owner, uses, time.Now().Add(ttl), map[string]bool{}}
	return secret.New(text)
}

// Ban keeps an account out until it is called with code "": with NotAllowed it enrols no hosts, with
// protocol.HostSuspended those it has are sent away too. Their keys stay good.
func (b *Backend) Ban(email, code string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bans[email] = code
	if code != protocol.HostSuspended {
		return
	}
	for _, n := range b.nodes {
		if s := n.session; s != nil && n.owner.Email == email && b.server != nil {
			b.sessions.Go(func() { s.dismiss(closePolicyViolation, "the host is suspended") })
		}
	}
}

func banned(code string) *refusal {
	message := "This account may not host on the sandbox."
	if code == protocol.HostSuspended {
		message = "This account's hosts are suspended on the sandbox."
	}
	return &refusal{http.StatusForbidden, protocol.Error{Code: protocol.ErrorCode(code), Message: message}}
}

// serveHosts adds the HTTP API that hosts enrol by and change their keys by.
func (b *Backend) serveHosts(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/hosts", b.enrol)
	mux.HandleFunc("GET /v1/hosts/self", b.self)
	mux.HandleFunc("POST /v1/hosts/{node}/keys", b.rotate)
	mux.HandleFunc("DELETE /v1/hosts/{node}/keys/{key}", b.revoke)
}

// enrol exchanges an access token of the identity provider, or an enrolment token, for a host key.
func (b *Backend) enrol(w http.ResponseWriter, r *http.Request) {
	owner, token, no := b.vouched(bearer(r))
	if no != nil {
		refuse(w, no)
		return
	}
	h, no := readHost(w, r)
	if no != nil {
		refuse(w, no)
		return
	}
	b.mu.Lock()
	n, no := b.place(owner, token, h)
	if no != nil {
		b.mu.Unlock()
		refuse(w, no)
		return
	}
	n.host = h
	b.void(n, func(*hostKey) bool { return true })
	text, key := b.newKey(n)
	b.mu.Unlock()
	b.options.Log.Info("enrolled a host", "node", n.id, "key", key.id, "owner", owner.Email)
	give(w, text, key)
	// Only now, so that the host has its new key before it loses the connection that it had.
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(n)
}

// vouched finds out for whom a bearer token speaks. The enrolment is nil where a person has signed in.
func (b *Backend) vouched(token string) (Owner, *enrolment, *refusal) {
	if strings.HasPrefix(token, enrolPrefix) {
		b.mu.Lock()
		defer b.mu.Unlock()
		// Found by its hash: how long that takes tells nothing of the token.
		e := b.enrolments[sha256.Sum256([]byte(token))]
		if e == nil || time.Now().After(e.expires) {
			return Owner{}, nil, usedUp()
		}
		return e.owner, e, nil
	}
	if b.options.Identity == nil {
		return Owner{}, nil, unauthorized(protocol.Unauthorized, "Nobody signs in with this backend: enrol with an enrolment token.")
	}
	user, err := b.options.Identity.Verify(token)
	if errors.Is(err, identity.ErrScope) {
		return Owner{}, nil, &refusal{http.StatusForbidden, protocol.Error{Code: insufficientScope, Message: "This sign-in does not allow enrolling hosts: it lacks the scope " + identity.EnrolScope + "."}}
	}
	if err != nil {
		b.options.Log.Info("refused an access token", "error", err)
		return Owner{}, nil, unauthorized(protocol.Unauthorized, "This is not an access token that enrols hosts, or it has expired. Sign in again.")
	}
	return Owner{user.ID, user.Email}, nil, nil
}

func usedUp() *refusal {
	return unauthorized(protocol.Unauthorized, "This enrolment token is not known, was used up, or has expired.")
}

// readHost reads what a host says of itself.
func readHost(w http.ResponseWriter, r *http.Request) (host, *refusal) {
	bad := func(message string) (host, *refusal) {
		return host{}, &refusal{http.StatusBadRequest, protocol.Error{Code: invalidRequest, Message: message}}
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return bad("Content-Type: takes application/json")
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(hostWithin))
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxHostBody))
	body.DisallowUnknownFields()
	var h host
	if err := body.Decode(&h); err != nil {
		return bad("the body is not the JSON that was asked for: " + err.Error())
	}
	if _, err := body.Token(); !errors.Is(err, io.EOF) {
		return bad("the body goes on after its JSON")
	}
	for _, field := range []struct {
		name, value string
		least, most int
	}{
		{"hostname", h.Hostname, 0, 253},
		{"os", h.OS, 1, 32},
		{"arch", h.Arch, 1, 32},
		{"agent_version", h.AgentVersion, 1, 128},
		{"hardware", h.Hardware, 0, 1024},
	} {
		if len(field.value) < field.least || len(field.value) > field.most {
			return bad(field.name + ": is missing or too long")
		}
	}
	if !isID(h.InstallID) {
		return bad("install_id: takes 1 to 128 letters, digits, '.', '_', ':' or '-'")
	}
	if r.Header.Get("Idempotency-Key") != h.InstallID {
		return bad("Idempotency-Key: takes the install_id")
	}
	return h, nil
}

func isID(id string) bool {
	return id != "" && len(id) <= 128 && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("._:-", r)
	})
}

// place finds or makes the node of a host that enrols; it needs mu held.
func (b *Backend) place(owner Owner, token *enrolment, h host) (*node, *refusal) {
	if code := b.bans[owner.Email]; code != "" {
		return nil, banned(code)
	}
	if token != nil && !token.hosts[h.InstallID] && len(token.hosts) >= token.uses {
		return nil, usedUp()
	}
	var found *node
	for _, n := range b.nodes {
		if n.owner.ID != owner.ID {
			continue
		}
		if n.host.InstallID == h.InstallID {
			found = n
			break
		}
		if n.id == h.ReplaceNodeID {
			found = n
		}
	}
	if found == nil && h.ReplaceNodeID != "" {
		return nil, &refusal{http.StatusNotFound, protocol.Error{Code: notFound, Message: "replace_node_id: there is no such node of this account."}}
	}
	if token != nil {
		token.hosts[h.InstallID] = true
	}
	if found == nil {
		found = b.newNode(owner)
	}
	return found, nil
}

// give hands a new key out, and sees to it that it is on its way.
func give(w http.ResponseWriter, text secret.String, key *hostKey) {
	answer(w, http.StatusCreated, credential{text.Reveal(), key.standing(), key.issued})
	_ = http.NewResponseController(w).Flush()
}

func (k *hostKey) standing() standing {
	return standing{NodeID: k.node.id, KeyID: k.id, Owner: k.node.owner, ExpiresAt: k.expires}
}

// self says what the key of a request stands for.
func (b *Backend) self(w http.ResponseWriter, r *http.Request) {
	key, no := b.admit(r)
	if no != nil {
		refuse(w, no)
		return
	}
	answer(w, http.StatusOK, key.standing())
}

// admitFor is admit for a path that names the key's node.
func (b *Backend) admitFor(r *http.Request) (*hostKey, *refusal) {
	key, no := b.admit(r)
	if no == nil && key.node.id != r.PathValue("node") {
		no = &refusal{http.StatusNotFound, protocol.Error{Code: notFound, Message: "This is not the node of this host key."}}
	}
	return key, no
}

// rotate gives a new key beside the one it is asked with. One that was given before, and never used, is
// void: its answer was lost.
func (b *Backend) rotate(w http.ResponseWriter, r *http.Request) {
	older, no := b.admitFor(r)
	if no != nil {
		refuse(w, no)
		return
	}
	b.mu.Lock()
	if no := b.check(older); no != nil { // it may have gone meanwhile
		b.mu.Unlock()
		refuse(w, no)
		return
	}
	b.void(older.node, func(k *hostKey) bool { return k.replaces == older })
	text, key := b.newKey(older.node)
	key.replaces = older
	if older.until.IsZero() { // asking again does not prolong its time
		older.until = time.Now().Add(overlap)
	}
	b.mu.Unlock()
	give(w, text, key)
}

// revoke makes the key of a request void, and what would have come in its place.
func (b *Backend) revoke(w http.ResponseWriter, r *http.Request) {
	key, no := b.admitFor(r)
	if no == nil && key.id != r.PathValue("key") {
		no = &refusal{http.StatusNotFound, protocol.Error{Code: notFound, Message: "A host key revokes itself alone."}}
	}
	if no != nil {
		refuse(w, no)
		return
	}
	b.mu.Lock()
	b.void(key.node, func(k *hostKey) bool { return k == key || k.replaces == key })
	b.settle(key.node)
	b.mu.Unlock()
	b.options.Log.Info("a host has signed out", "node", key.node.id, "key", key.id)
	w.WriteHeader(http.StatusNoContent)
}
