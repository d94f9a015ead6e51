package signin

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/secret"
)

const (
	minKey    = 8 // characters
	maxKey    = 512
	maxBearer = 16 << 10 // what servers take in a header

	// tries of one call, where the API does not answer or is in trouble.
	tries = 4
)

// Refusal is the marketplace's own no.
type Refusal struct {
	Status  int    // of HTTP; 401: the key, or the token, is not taken (any more)
	Code    string // for programs
	Message string // for people, at most 200 characters; may be ""
}

// Error implements error.
func (r *Refusal) Error() string {
	if r.Message == "" {
		return fmt.Sprintf("The marketplace refuses this (%s, HTTP %d).", r.Code, r.Status)
	}
	return "The marketplace says: " + strings.TrimSuffix(r.Message, ".") + "."
}

// owner is how the API names whose host it is.
type owner struct {
	Email string `json:"email"`
}

func (o owner) String() string { return clean(o.Email) }

// credentialJSON is the API's answer that holds a host key.
type credentialJSON struct {
	NodeID     string        `json:"node_id"`
	HostAPIKey secret.String `json:"host_api_key"`
	KeyID      string        `json:"key_id"`
	Owner      owner         `json:"owner"`
	ExpiresAt  *time.Time    `json:"expires_at"`
}

// register exchanges a token for a host key. The same install id again gives the same node and voids
// the key before: an answer that was lost does no harm.
func (c *Client) register(ctx context.Context, h Host, token secret.String) (Credential, error) {
	if !plainID(h.InstallID) {
		return Credential{}, fmt.Errorf("registering this host: install id %q is not 1 to 128 letters, digits, '.', '_', ':' or '-'", clean(h.InstallID))
	}
	if h.AgentVersion == "" {
		h.AgentVersion = c.version
	}
	body := struct {
		InstallID     string `json:"install_id"`
		Hostname      string `json:"hostname"`
		OS            string `json:"os"`
		Arch          string `json:"arch"`
		AgentVersion  string `json:"agent_version"`
		Hardware      string `json:"hardware"`
		ReplaceNodeID string `json:"replace_node_id,omitempty"`
	}{h.InstallID, h.Hostname, h.OS, h.Arch, h.AgentVersion, h.Hardware, h.ReplaceNodeID}
	var got credentialJSON
	post := func() error {
		_, err := c.call(ctx, request{
			method: http.MethodPost, path: "/v1/hosts", bearer: token,
			idempotencyKey: h.InstallID, body: body, tries: tries,
		}, &got)
		return err
	}
	err := post()
	// The node was deleted, or another account has signed in: then this host becomes a new one.
	if r, ok := errors.AsType[*Refusal](err); ok && r.Status == http.StatusNotFound && body.ReplaceNodeID != "" {
		body.ReplaceNodeID = ""
		err = post()
	}
	if err != nil {
		return Credential{}, err
	}
	return got.check()
}

// Rotate exchanges a host key for a new one. The old one stays good until the new one is first used,
// or for the time the marketplace gives it.
func (c *Client) Rotate(ctx context.Context, nodeID string, old secret.String) (Credential, error) {
	if !plainID(nodeID) {
		return Credential{}, errors.New("rotating the host key: no node id")
	}
	var got credentialJSON
	_, err := c.call(ctx, request{
		method: http.MethodPost, path: "/v1/hosts/" + url.PathEscape(nodeID) + "/keys", bearer: old,
		idempotencyKey: rand.Text(), tries: tries,
	}, &got)
	if err != nil {
		return Credential{}, err
	}
	if got.NodeID != nodeID {
		return Credential{}, say(nil, "The marketplace gave a key for another node; the old key stays.")
	}
	return got.check()
}

// Revoke makes a host key void. It succeeds too where a try before this one has done it and only the
// answer was lost.
func (c *Client) Revoke(ctx context.Context, nodeID, keyID string, key secret.String) error {
	if !plainID(nodeID) || !plainID(keyID) {
		return errors.New("revoking the host key: no node id or key id")
	}
	tried, err := c.call(ctx, request{
		method: http.MethodDelete, path: "/v1/hosts/" + url.PathEscape(nodeID) + "/keys/" + url.PathEscape(keyID),
		bearer: key, tries: tries,
	}, nil)
	if r, ok := errors.AsType[*Refusal](err); ok && r.Status == http.StatusUnauthorized && tried > 1 {
		return nil
	}
	return err
}

// Self asks the marketplace, once, what a host key is good for. A *Refusal with status 401: nothing.
func (c *Client) Self(ctx context.Context, key secret.String) (Self, error) {
	var got struct {
		NodeID    string     `json:"node_id"`
		KeyID     string     `json:"key_id"`
		Owner     owner      `json:"owner"`
		ExpiresAt *time.Time `json:"expires_at"`
	}
	if _, err := c.call(ctx, request{method: http.MethodGet, path: "/v1/hosts/self", bearer: key, tries: 1}, &got); err != nil {
		return Self{}, err
	}
	if !plainID(got.NodeID) || !plainID(got.KeyID) {
		return Self{}, say(nil, "The marketplace answered without a node id and a key id; tell the marketplace.")
	}
	return Self{got.NodeID, got.KeyID, got.Owner.String(), when(got.ExpiresAt)}, nil
}

// check accepts a credential whole or not at all: a key that cannot be kept or sent is worse than none.
func (j credentialJSON) check() (Credential, error) {
	if !visible(j.HostAPIKey.Reveal(), minKey, maxKey) {
		return Credential{}, say(nil, "The marketplace gave a host key that is not %d to %d characters of ASCII; tell the marketplace.", minKey, maxKey)
	}
	if !plainID(j.NodeID) || !plainID(j.KeyID) {
		return Credential{}, say(nil, "The marketplace gave a host key without a node id and a key id; tell the marketplace.")
	}
	return Credential{j.HostAPIKey, j.NodeID, j.KeyID, j.Owner.String(), when(j.ExpiresAt)}, nil
}

func when(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// plainID reports whether an id can stand in a path, a header and a file's name as it is.
func plainID(id string) bool {
	return visible(id, 1, 128) && strings.Trim(id, ".") != "" && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("._:-", r)
	})
}

// request is one call of the API.
type request struct {
	method, path   string
	bearer         secret.String
	idempotencyKey string
	body           any // nil: none
	tries          int
}

// call sends a request, again where the API did not answer or is in trouble, and reads the answer
// into want, which may be nil. It returns how often it tried.
func (c *Client) call(ctx context.Context, r request, want any) (tried int, _ error) {
	if !visible(r.bearer.Reveal(), 1, maxBearer) {
		return 0, say(nil, "There is no key or token to show the marketplace that could be sent; sign in.")
	}
	for wait := c.times.retry; ; wait *= 2 {
		tried++
		retryAfter, again, err := c.try(ctx, r, want)
		if err == nil || !again || tried == r.tries || max(wait, retryAfter) > c.times.patience {
			return tried, err
		}
		c.log.Debug("asking the marketplace again", "method", r.method, "path", r.path, "tried", tried, "error", err)
		if pause(ctx, max(wait, retryAfter)) != nil {
			return tried, explain(ctx.Err(), "The marketplace at "+c.api)
		}
	}
}

// try sends a request once. again: the same request may have better luck.
func (c *Client) try(ctx context.Context, r request, want any) (retryAfter time.Duration, again bool, err error) {
	var body []byte
	if r.body != nil {
		if body, err = json.Marshal(r.body); err != nil {
			return 0, false, fmt.Errorf("encoding a request: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.api+r.path, bytes.NewReader(body))
	if err != nil {
		return 0, false, fmt.Errorf("making a request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+r.bearer.Reveal())
	req.Header.Set("Accept", "application/json")
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.idempotencyKey != "" {
		req.Header.Set("Idempotency-Key", r.idempotencyKey)
	}
	who := "The marketplace at " + c.api
	res, err := c.http(ctx, c.transport).Do(req)
	if err != nil {
		return 0, ctx.Err() == nil && !lasting(err), explain(err, who)
	}
	defer res.Body.Close()
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		if want == nil {
			return 0, false, nil
		}
		if err := json.NewDecoder(res.Body).Decode(want); err != nil {
			return 0, false, say(nil, "%s answered with something else than was asked for (HTTP %d): a captive portal, or the address is wrong.", who, res.StatusCode)
		}
		return 0, false, nil
	}
	again = res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests
	return wish(res.Header.Get("Retry-After"), time.Now()), again, refusal(res, who)
}

// refusal reads why the API said no. Only what bears the API's mark is its own word: a key is not
// given up because a captive portal answers 401.
func refusal(res *http.Response, who string) error {
	var body struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	status := res.StatusCode
	own := json.NewDecoder(res.Body).Decode(&body) == nil && body.Error.Code != ""
	if status == http.StatusUnauthorized && !strings.Contains(res.Header.Get("WWW-Authenticate"), `realm="distributedcompute"`) {
		own = false
	}
	switch {
	case own && status >= 400:
		return &Refusal{Status: status, Code: clean(body.Error.Code), Message: clean(body.Error.Message)}
	case status >= 300 && status < 400:
		return say(nil, "%s points elsewhere (HTTP %d), which is not followed: a captive portal, or the address is wrong.", who, status)
	case status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusProxyAuthRequired:
		return say(nil, "Something before %s asks for a sign-in of its own (HTTP %d): a captive portal or a proxy.", strings.TrimPrefix(who, "The "), status)
	case status == http.StatusNotFound:
		return say(nil, "%s does not know hosts (HTTP 404); check the address.", who)
	case status == http.StatusTooManyRequests || status >= 500:
		return say(nil, "%s is in trouble (HTTP %d); try again later.", who, status)
	}
	return say(nil, "%s did not accept this (HTTP %d); tell the marketplace.", who, status)
}

// wish reads a Retry-After header; 0: none that makes sense.
func wish(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
