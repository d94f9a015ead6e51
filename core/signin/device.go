package signin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"golang.org/x/oauth2"
)

const (
	maxUserCode = 64        // characters
	maxLife     = time.Hour // of a code, whatever the provider says
	slowest     = 60        // seconds between two polls, whatever the provider says
	slower      = 5         // seconds to add when the provider does not answer (RFC 8628, 3.5)
)

// Device signs in by a code that a person enters on any device (RFC 8628). It gives show the address
// and the code, and returns with the host key once somebody has agreed there. show is called once and
// must return at once. The error is ErrNoDeviceGrant where the provider does not do that. The end of
// ctx ends the sign-in.
func (c *Client) Device(ctx context.Context, h Host, show func(Prompt)) (Credential, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p, err := c.discover(ctx)
	if err != nil {
		return Credential{}, err
	}
	if p.Endpoint.DeviceAuthURL == "" {
		return Credential{}, ErrNoDeviceGrant
	}
	code, err := p.DeviceAuth(p.with(ctx))
	if err != nil {
		if answer, ok := errors.AsType[*oauth2.RetrieveError](err); ok && answer.ErrorCode == "unauthorized_client" {
			return Credential{}, ErrNoDeviceGrant // offered, but not to this agent
		}
		return Credential{}, p.refused(err)
	}
	prompt, err := c.ask(p, code)
	if err != nil {
		return Credential{}, err
	}
	show(prompt)
	token, err := c.poll(ctx, p, code)
	if err != nil {
		return Credential{}, err
	}
	finishing, done := context.WithTimeout(ctx, c.times.finish)
	defer done()
	return c.enter(finishing, p, h, token, "")
}

// ask checks what the provider wants shown, and brings its times within bounds.
func (c *Client) ask(p *provider, code *oauth2.DeviceAuthResponse) (Prompt, error) {
	prompt := Prompt{URL: code.VerificationURI, UserCode: code.UserCode}
	err := c.checkAddress("its verification_uri", code.VerificationURI)
	if err == nil && code.VerificationURIComplete != "" {
		prompt.URL = code.VerificationURIComplete
		err = c.checkAddress("its verification_uri_complete", prompt.URL)
	}
	if err == nil && (code.DeviceCode == "" || clean(code.UserCode) != code.UserCode || code.UserCode == "" || len(code.UserCode) > maxUserCode) {
		err = errors.New("its code is missing, or cannot be shown")
	}
	if err != nil {
		return Prompt{}, say(nil, "%s cannot be used by code: %s.", p.who, err)
	}
	now := time.Now()
	if code.Expiry.IsZero() {
		code.Expiry = now.Add(c.times.person)
	} else if longest := now.Add(maxLife); code.Expiry.After(longest) {
		code.Expiry = longest
	}
	code.Interval = min(max(code.Interval, int64(c.times.poll/time.Second)), slowest)
	prompt.ExpiresAt = code.Expiry
	return prompt, nil
}

// poll waits until somebody has agreed or declined, or the code has expired. A provider that is away
// for a while costs nothing but time.
func (c *Client) poll(ctx context.Context, p *provider, code *oauth2.DeviceAuthResponse) (*oauth2.Token, error) {
	for {
		token, err := p.DeviceAccessToken(p.with(ctx), code)
		if err == nil {
			return token, nil
		}
		answer, answered := errors.AsType[*oauth2.RetrieveError](err)
		switch {
		case ctx.Err() != nil:
			return nil, say(ctx.Err(), "The sign-in was cancelled.")
		case !time.Now().Before(code.Expiry), answered && answer.ErrorCode == "expired_token":
			return nil, say(context.DeadlineExceeded, "The code expired before anybody confirmed it; start again to get a new one.")
		case answered && answer.ErrorCode == "access_denied":
			return nil, say(nil, "Signing in was declined on the other device (%s); start again if that was a mistake.", told(answer.ErrorCode, answer.ErrorDescription))
		case answered && passes(answer.Response.StatusCode), isTransport(err) && !lasting(err):
			c.log.Debug("the sign-in's provider does not answer; asking it less often", "error", p.refused(err))
			code.Interval = min(code.Interval+slower, slowest)
		default:
			return nil, p.refused(err)
		}
	}
}

// passes reports an HTTP status that says nothing about the code.
func passes(status int) bool {
	return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}
