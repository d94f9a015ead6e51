package signin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/distributedcompute/host-agent/core/secret"
)

// provider is the marketplace's OpenID provider, as its discovery document tells.
type provider struct {
	oauth2.Config
	ids    *oidc.IDTokenVerifier
	saysIt bool // its answers to the browser name their issuer (RFC 9207)
	http   *http.Client
	who    string // begins a sentence about it
}

// discover asks the provider what it can do. Nothing of the provider outlives ctx.
func (c *Client) discover(ctx context.Context) (*provider, error) {
	if c.issuer == "" {
		return nil, say(nil, "This agent does not know the marketplace's sign-in; name its issuer and client id, or use an enrolment token.")
	}
	p := &provider{http: c.http(ctx, c.toProvider()), who: "The marketplace's sign-in at " + c.issuer}
	asking, cancel := context.WithTimeout(ctx, c.times.discovery)
	defer cancel()
	found, err := oidc.NewProvider(oidc.ClientContext(asking, p.http), c.issuer)
	if err != nil {
		return nil, p.undiscovered(err)
	}
	var metadata struct {
		JWKS      string   `json:"jwks_uri"`
		Challenge []string `json:"code_challenge_methods_supported"`
		SaysIt    bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := found.Claims(&metadata); err != nil {
		return nil, say(nil, "%s describes itself in a way that cannot be read; tell the marketplace.", p.who)
	}
	endpoint := found.Endpoint()
	// With the style left open, the library would try a code twice, and a code is good only once.
	endpoint.AuthStyle = oauth2.AuthStyleInParams
	wrong := errors.Join(
		c.checkAddress("its authorization_endpoint", endpoint.AuthURL),
		c.checkAddress("its token_endpoint", endpoint.TokenURL),
		c.checkAddress("its jwks_uri", metadata.JWKS),
	)
	if endpoint.DeviceAuthURL != "" {
		wrong = errors.Join(wrong, c.checkAddress("its device_authorization_endpoint", endpoint.DeviceAuthURL))
	}
	if metadata.Challenge != nil && !slices.Contains(metadata.Challenge, "S256") {
		wrong = errors.Join(wrong, errors.New("it does not take S256 challenges"))
	}
	if wrong != nil {
		return nil, say(nil, "%s cannot be used: %s.", p.who, strings.ReplaceAll(wrong.Error(), "\n", "; "))
	}
	p.saysIt = metadata.SaysIt
	p.Config = oauth2.Config{ClientID: c.clientID, Endpoint: endpoint, Scopes: c.scopes}
	p.ids = found.Verifier(&oidc.Config{ClientID: c.clientID, SupportedSigningAlgs: []string{oidc.RS256}})
	return p, nil
}

func (p *provider) undiscovered(err error) error {
	if mismatch, ok := errors.AsType[*oidc.IssuerMismatchError](err); ok {
		return say(nil, "%s says that it is %q; the two must be spelled the same, to the last slash.", p.who, clean(mismatch.Discovered))
	}
	if isTransport(err) {
		return explain(err, p.who)
	}
	return say(nil, "%s does not answer as an OpenID provider (%s); check the address.", p.who, clean(err.Error()))
}

// isTransport tells an error of the network from one in what came over it.
func isTransport(err error) bool {
	_, ok := errors.AsType[*url.Error](err)
	return ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// with carries the guarded client to the libraries.
func (p *provider) with(ctx context.Context) context.Context { return oidc.ClientContext(ctx, p.http) }

// identity is what came of a person's consent: a token for one call of the API, and an e-mail
// address to show.
type identity struct {
	token secret.String
	email string
}

// accept checks what the token endpoint gave. nonce "": the flow has none, and the provider may
// leave out the ID token. The identity serves display alone: the marketplace takes its own view from
// the access token.
func (p *provider) accept(ctx context.Context, token *oauth2.Token, nonce string) (identity, error) {
	got := identity{token: secret.New(token.AccessToken)}
	if !strings.EqualFold(token.Type(), "Bearer") || !visible(token.AccessToken, 1, maxBearer) {
		return identity{}, say(nil, "%s gave an access token that cannot be used; tell the marketplace.", p.who)
	}
	raw, _ := token.Extra("id_token").(string)
	if raw == "" && nonce == "" {
		return got, nil
	}
	if raw == "" {
		return identity{}, say(nil, "%s did not say who signed in (no ID token); tell the marketplace.", p.who)
	}
	id, err := p.ids.Verify(p.with(ctx), raw)
	if err != nil {
		return identity{}, p.unproven(err)
	}
	var claims struct {
		Email string `json:"email"`
		Party string `json:"azp"`
	}
	switch {
	case nonce != "" && !equal(id.Nonce, nonce):
		err = errors.New("it is for another sign-in")
	case id.AccessTokenHash != "":
		err = id.VerifyAccessToken(token.AccessToken)
	}
	if err == nil {
		err = id.Claims(&claims)
	}
	if err == nil && len(id.Audience) > 1 && claims.Party != p.ClientID {
		err = errors.New("it is for another client")
	}
	if err != nil {
		return identity{}, p.unproven(err)
	}
	got.email = clean(claims.Email)
	return got, nil
}

func (p *provider) unproven(err error) error {
	if isTransport(err) {
		return explain(err, p.who)
	}
	if expired, ok := errors.AsType[*oidc.TokenExpiredError](err); ok {
		return say(nil, "The sign-in's proof of who signed in expired at %s; check this machine's clock, then start again.", expired.Expiry.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	if strings.Contains(err.Error(), "fetching keys") { // the library keeps no more of the cause
		return say(nil, "%s does not show its keys, so nobody can check who signed in; start again later.", p.who)
	}
	return say(nil, "The sign-in's proof of who signed in does not hold (%s); start again, and tell the marketplace if it stays so.", clean(err.Error()))
}

// refused says why the provider gave no token.
func (p *provider) refused(err error) error {
	answer, ok := errors.AsType[*oauth2.RetrieveError](err)
	switch {
	case ok && answer.ErrorCode != "":
		return say(nil, "%s did not accept this (%s); %s.", p.who, told(answer.ErrorCode, answer.ErrorDescription), remedy(answer.ErrorCode))
	case ok:
		return say(nil, "%s is in trouble (HTTP %d); start again later.", p.who, answer.Response.StatusCode)
	case isTransport(err):
		return explain(err, p.who)
	}
	return say(nil, "%s answered something that cannot be read (%s); tell the marketplace.", p.who, clean(err.Error()))
}

// remedy is what a person can do about a provider's code.
func remedy(code string) string {
	switch code {
	case "invalid_scope", "invalid_client", "unauthorized_client", "unsupported_response_type", "unsupported_grant_type":
		return "it does not know this agent well enough: tell the marketplace" // another try would end the same way
	}
	return "start again"
}

// told puts a provider's code and description into one bracket.
func told(code, description string) string {
	if description = strings.TrimSuffix(clean(description), "."); description == "" {
		return clean(code)
	}
	return clean(fmt.Sprintf("%s: %s", code, description))
}
