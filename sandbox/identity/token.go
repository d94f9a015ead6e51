package identity

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	algorithm = jose.RS256
	// accessType tells an access token from an ID token and a session's, which the same key signs.
	accessType = "at+jwt"
	// skew is how far the clocks of an issuer and a verifier may be apart.
	skew = 5 * time.Second
)

// ErrScope is a good access token that does not cover enrolling hosts.
var ErrScope = errors.New("the access token's scope does not hold " + EnrolScope)

// claims are those of an access token.
type claims struct {
	jwt.Claims
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
}

// mint makes the library's opaque codes and tokens. The library's own access tokens are of type
// "JWT" and cannot be told from ID tokens, so it is asked for opaque ones, and these are JWTs.
type mint struct{ provider *Provider }

// Encrypt makes a token of "id:subject", and a code of anything else.
func (m mint) Encrypt(text string) (string, error) {
	id, subject, isToken := strings.Cut(text, ":")
	if !isToken {
		return rand.Text() + rand.Text(), nil
	}
	t, ok := m.provider.store.token(id)
	if !ok {
		return "", errors.New("minting an access token: it is not in the store")
	}
	return m.provider.sign(accessType, claims{
		Claims: jwt.Claims{
			Issuer:    m.provider.issuer,
			Subject:   subject,
			ID:        id,
			IssuedAt:  jwt.NewNumericDate(t.issued),
			NotBefore: jwt.NewNumericDate(t.issued),
			Expiry:    jwt.NewNumericDate(t.expires),
		},
		ClientID: clientID,
		Scope:    strings.Join(t.scopes, " "),
	})
}

// Decrypt gives "id:subject" of a token that is good.
func (m mint) Decrypt(text string) (string, error) {
	c, err := m.provider.parse(text)
	if err != nil {
		return "", err
	}
	return c.ID + ":" + c.Subject, nil
}

// sign makes a JWT of a type.
func (p *Provider) sign(kind string, claims any) (string, error) {
	key := jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: p.key, KeyID: p.keyID}}
	signer, err := jose.NewSigner(key, new(jose.SignerOptions).WithType(jose.ContentType(kind)))
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
}

// Verify returns the user for whom an access token was issued, if it may enrol hosts. It needs no
// store, as Clerk's access tokens do not: one that was revoked is good until it expires.
// A token that is good for other things is ErrScope.
func (p *Provider) Verify(accessToken string) (User, error) {
	c, err := p.parse(accessToken)
	if err != nil {
		return User{}, err
	}
	i := slices.IndexFunc(p.users, func(u User) bool { return u.ID == c.Subject })
	if i < 0 {
		return User{}, errors.New("verifying an access token: its user is not known")
	}
	if !slices.Contains(strings.Fields(c.Scope), EnrolScope) {
		return User{}, ErrScope
	}
	return p.users[i], nil
}

func (p *Provider) parse(text string) (claims, error) {
	var c claims
	signed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{algorithm})
	if err != nil {
		return c, fmt.Errorf("reading an access token: %w", err)
	}
	header := signed.Headers[0]
	if kind, _ := header.ExtraHeaders[jose.HeaderType].(string); kind != accessType && kind != "application/"+accessType {
		return c, fmt.Errorf("verifying an access token: it is of type %q", kind)
	}
	if header.KeyID != p.keyID {
		return c, fmt.Errorf("verifying an access token: key %q is not known", header.KeyID)
	}
	if err := signed.Claims(p.key.Public(), &c); err != nil {
		return c, fmt.Errorf("verifying an access token: %w", err)
	}
	if c.Expiry == nil {
		return c, errors.New("verifying an access token: it has no end")
	}
	if err := c.ValidateWithLeeway(jwt.Expected{Issuer: p.issuer, Time: time.Now()}, skew); err != nil {
		return c, fmt.Errorf("verifying an access token: %w", err)
	}
	if c.ClientID != clientID || !strings.HasPrefix(c.Subject, "user_") {
		return c, errors.New("verifying an access token: it is another application's, or no person's")
	}
	return c, nil
}
