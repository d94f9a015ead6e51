package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/zitadel/oidc/v3/pkg/oidc"
)

const (
	minState        = 8
	challengeLength = 43 // of SHA-256 in base64url
)

// authorize refuses what Clerk refuses and the library would let pass, or would notice only when the
// code is redeemed.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		http.Error(w, "takes GET or POST", http.StatusMethodNotAllowed)
		return
	}
	// Until the redirect is known to be the client's, an error must not go there: the person sees it.
	if wrong := malformed(r); wrong != "" {
		p.problem(w, http.StatusBadRequest, wrong)
		return
	}
	if id := r.Form.Get("client_id"); id != clientID {
		p.problem(w, http.StatusBadRequest, fmt.Sprintf("There is no application with the client_id %q here.", id))
		return
	}
	redirect, err := url.Parse(r.Form.Get("redirect_uri"))
	if err != nil || !registered(redirect) {
		p.problem(w, http.StatusBadRequest, "The 'redirect_uri' parameter does not match any of the OAuth 2.0 Client's pre-registered redirect urls.")
		return
	}
	refusal := checkAuthorize(r.Form)
	if refusal == nil && p.has(Denying) {
		refusal = oidc.ErrAccessDenied().WithDescription("The sandbox denies every authorization.")
	}
	if refusal != nil {
		p.options.Log.Info("refused an authorization request", "error", refusal.ErrorType, "why", refusal.Description)
		sendBack(w, r, redirect, r.Form.Get("state"), refusal)
		return
	}
	p.oauth.ServeHTTP(w, r)
}

// malformed reads a form and says in one sentence what is wrong with it, "" if nothing is. A
// parameter that stands twice would be read one way here and another way by the library.
func malformed(r *http.Request) string {
	if err := r.ParseForm(); err != nil {
		return "The request is not a form that can be read."
	}
	for name, values := range r.Form {
		if len(values) > 1 {
			return fmt.Sprintf("The parameter %q stands in the request twice.", name)
		}
	}
	return ""
}

// registered reports whether u is RedirectURI with any port: the same scheme, the same address
// literally, the same path and query.
func registered(u *url.URL) bool {
	own, _ := url.Parse(RedirectURI)
	return u.Scheme == own.Scheme && u.Hostname() == own.Hostname() && u.User == nil &&
		u.EscapedPath() == own.EscapedPath() && u.RawQuery == own.RawQuery && !u.ForceQuery && u.Fragment == ""
}

// checkAuthorize is nil for a request that may go on.
func checkAuthorize(form url.Values) *oidc.Error {
	switch {
	case form.Get("response_type") != string(oidc.ResponseTypeCode):
		return &oidc.Error{ErrorType: "unsupported_response_type", Description: "response_type: takes code"}
	case len(form.Get("state")) < minState:
		return &oidc.Error{ErrorType: "invalid_state", Description: fmt.Sprintf("state: takes at least %d characters", minState)}
	case form.Get("code_challenge_method") != string(oidc.CodeChallengeMethodS256), len(form.Get("code_challenge")) != challengeLength:
		return oidc.ErrInvalidRequest().WithDescription("code_challenge: this client must use PKCE with S256")
	case !slices.Contains([]string{"", "query", "form_post"}, form.Get("response_mode")):
		return &oidc.Error{ErrorType: "unsupported_response_mode", Description: "response_mode: takes query or form_post"}
	}
	prompts := strings.Fields(form.Get("prompt"))
	for _, prompt := range prompts {
		switch {
		case !slices.Contains([]string{oidc.PromptNone, oidc.PromptLogin, oidc.PromptConsent}, prompt):
			return oidc.ErrInvalidRequest().WithDescription("prompt: takes none, login and consent, not %q", prompt)
		case prompt == oidc.PromptNone && len(prompts) > 1:
			return oidc.ErrInvalidRequest().WithDescription("prompt: takes none alone")
		case prompt == oidc.PromptNone:
			return oidc.ErrLoginRequired().WithDescription("Nobody is signed in here without being asked.")
		}
	}
	return checkScopes(form.Get("scope"))
}

func checkScopes(asked string) *oidc.Error {
	if strings.TrimSpace(asked) == "" {
		return oidc.ErrInvalidScope().WithDescription("scope: is missing")
	}
	for _, scope := range strings.Fields(asked) {
		if !slices.Contains(scopes(), scope) {
			return oidc.ErrInvalidScope().WithDescription("scope: %q is not this client's", scope)
		}
	}
	return nil
}

// sendBack tells the client through the person's browser.
func sendBack(w http.ResponseWriter, r *http.Request, redirect *url.URL, state string, refusal *oidc.Error) {
	query := redirect.Query()
	query.Set("error", string(refusal.ErrorType))
	query.Set("error_description", refusal.Description)
	query.Set("state", state)
	to := *redirect
	to.RawQuery = query.Encode()
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, to.String(), http.StatusSeeOther)
}

// token refuses grants that the client does not have; the library has more.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	if wrong := malformed(r); wrong != "" {
		refuse(w, oidc.ErrInvalidRequest().WithDescription("%s", wrong))
		return
	}
	if grant := oidc.GrantType(r.PostForm.Get("grant_type")); !slices.Contains(grants(p.options.Device), grant) {
		refuse(w, oidc.ErrUnsupportedGrantType().WithDescription("grant_type: %q is not this client's", grant))
		return
	}
	p.oauth.ServeHTTP(w, r)
}

// fromKey is under which a request's context holds who asks for a device code.
type fromKey struct{}

// device notes who asks, for the person who will be asked to approve it.
func (p *Provider) device(w http.ResponseWriter, r *http.Request) {
	if wrong := malformed(r); wrong != "" {
		refuse(w, oidc.ErrInvalidRequest().WithDescription("%s", wrong))
		return
	}
	if refusal := checkScopes(r.PostForm.Get("scope")); refusal != nil {
		refuse(w, refusal)
		return
	}
	from, _, _ := strings.Cut(r.RemoteAddr, ":")
	if program := r.UserAgent(); program != "" {
		from += fmt.Sprintf(", %.100s", program)
	}
	p.oauth.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), fromKey{}, from)))
}

func refuse(w http.ResponseWriter, refusal *oidc.Error) {
	answer(w, http.StatusBadRequest, refusal)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
