package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

var (
	errNotKnown = errors.New("not known, or too old")
	errNoSecret = errors.New("the client has no secret")
	errTooMany  = errors.New("too many people are signing in")
)

// maxRequests bounds the memory that anybody may fill from outside.
const maxRequests = 1000

// request is an authorization that somebody has asked for: by a redirect, or for a device. It is
// itself what the library calls an AuthRequest. Once it is in the store, the store's lock guards it.
type request struct {
	id       string // what its pages know it by; nobody else does
	asked    oidc.AuthRequest
	expires  time.Time
	user     User // the zero value before somebody has signed in
	signedIn time.Time
	allowed  bool
	denied   bool
	code     string

	// Of a device alone.
	deviceCode string
	userCode   string
	from       string // who asked, for people
	interval   time.Duration
	polled     time.Time
}

func (r request) GetID() string                      { return r.id }
func (r request) GetACR() string                     { return "" }
func (r request) GetAMR() []string                   { return []string{"pwd"} }
func (r request) GetAudience() []string              { return []string{clientID} }
func (r request) GetAuthTime() time.Time             { return r.signedIn }
func (r request) GetClientID() string                { return clientID }
func (r request) GetNonce() string                   { return r.asked.Nonce }
func (r request) GetRedirectURI() string             { return r.asked.RedirectURI }
func (r request) GetResponseType() oidc.ResponseType { return r.asked.ResponseType }
func (r request) GetResponseMode() oidc.ResponseMode { return r.asked.ResponseMode }
func (r request) GetScopes() []string                { return r.asked.Scopes }
func (r request) GetState() string                   { return r.asked.State }
func (r request) GetSubject() string                 { return r.user.ID }
func (r request) Done() bool                         { return r.allowed }
func (r request) GetCodeChallenge() *oidc.CodeChallenge {
	return &oidc.CodeChallenge{Challenge: r.asked.CodeChallenge, Method: r.asked.CodeChallengeMethod}
}

// token is an access token that was issued.
type token struct {
	subject         string
	scopes          []string
	issued, expires time.Time
}

// store is the library's view of all that the provider knows.
type store struct {
	provider *Provider

	mu       sync.Mutex
	requests map[string]*request // by id
	tokens   map[string]token    // by id
}

// add takes a request in. What is too old goes.
func (s *store) add(r request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for id, old := range s.requests {
		if now.After(old.expires) {
			delete(s.requests, id)
		}
	}
	for id, old := range s.tokens {
		if now.After(old.expires) {
			delete(s.tokens, id)
		}
	}
	if len(s.requests) >= maxRequests {
		return errTooMany
	}
	s.requests[r.id] = &r
	return nil
}

// change looks up a request for which is true, lets act work on it, and returns what it then is.
// act may be nil.
func (s *store) change(is func(*request) bool, act func(*request) error) (request, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if !is(r) || time.Now().After(r.expires) {
			continue
		}
		var err error
		if act != nil {
			err = act(r)
		}
		return *r, err
	}
	return request{}, errNotKnown
}

func withID(id string) func(*request) bool {
	return func(r *request) bool { return same(r.id, id) }
}

// same compares in a time that does not tell how much of a secret was right.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

func (s *store) token(id string) (token, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tokens[id]
	return t, ok && time.Now().Before(t.expires)
}

func (s *store) CreateAuthRequest(_ context.Context, asked *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	r := request{id: rand.Text(), asked: *asked, expires: time.Now().Add(codeLifetime)}
	return r, s.add(r)
}

func (s *store) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	return s.change(withID(id), nil)
}

// SaveAuthCode gives a request its code, once: a page that is loaded again gets no second one.
func (s *store) SaveAuthCode(_ context.Context, id, code string) error {
	_, err := s.change(withID(id), func(r *request) error {
		if r.code != "" {
			return oidc.ErrInvalidRequest().WithDescription("this request has its code already")
		}
		r.code, r.expires = code, time.Now().Add(codeLifetime)
		return nil
	})
	return err
}

// AuthRequestByCode takes the request out: a code is good once, whatever comes of it.
func (s *store) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	r, err := s.change(func(r *request) bool { return r.code != "" && same(r.code, code) }, func(r *request) error {
		delete(s.requests, r.id)
		return nil
	})
	if err == nil && s.provider.has(ExpiringCode) {
		err = errNotKnown
	}
	return r, err
}

func (s *store) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.requests, id)
	return nil
}

func (s *store) CreateAccessToken(_ context.Context, r op.TokenRequest) (string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, now := "oat_"+rand.Text(), time.Now()
	s.tokens[id] = token{r.GetSubject(), r.GetScopes(), now, now.Add(tokenLifetime)}
	return id, now.Add(tokenLifetime), nil
}

func (s *store) CreateAccessAndRefreshTokens(context.Context, op.TokenRequest, string) (string, string, time.Time, error) {
	return "", "", time.Time{}, oidc.ErrUnsupportedGrantType()
}

func (s *store) TokenRequestByRefreshToken(context.Context, string) (op.RefreshTokenRequest, error) {
	return nil, op.ErrInvalidRefreshToken
}

func (s *store) TerminateSession(context.Context, string, string) error { return nil }

func (s *store) RevokeToken(_ context.Context, id, _, _ string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, id)
	return nil
}

func (s *store) GetRefreshTokenInfo(context.Context, string, string) (string, string, error) {
	return "", "", op.ErrInvalidRefreshToken
}

func (s *store) SigningKey(context.Context) (op.SigningKey, error) {
	return signingKey{s.provider}, nil
}

func (s *store) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{algorithm}, nil
}

func (s *store) KeySet(context.Context) ([]op.Key, error) {
	return []op.Key{publicKey{signingKey{s.provider}}}, nil
}

func (s *store) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != clientID {
		return nil, errors.New("the client is not known")
	}
	return client{s.provider.options.Device}, nil
}

func (s *store) AuthorizeClientIDSecret(context.Context, string, string) error { return errNoSecret }

func (s *store) SetUserinfoFromScopes(_ context.Context, info *oidc.UserInfo, subject, _ string, scopes []string) error {
	i := slices.IndexFunc(s.provider.users, func(u User) bool { return u.ID == subject })
	if i < 0 {
		return errNotKnown
	}
	info.Subject = subject
	if slices.Contains(scopes, oidc.ScopeProfile) {
		info.Name = s.provider.users[i].Name
	}
	if slices.Contains(scopes, oidc.ScopeEmail) {
		info.Email, info.EmailVerified = s.provider.users[i].Email, true
	}
	return nil
}

func (s *store) SetUserinfoFromToken(ctx context.Context, info *oidc.UserInfo, id, subject, _ string) error {
	t, ok := s.token(id)
	if !ok || t.subject != subject {
		return errNotKnown
	}
	return s.SetUserinfoFromScopes(ctx, info, subject, clientID, t.scopes)
}

func (s *store) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errNoSecret
}

func (s *store) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

func (s *store) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errNoSecret
}

func (s *store) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errNoSecret
}

func (s *store) Health(context.Context) error { return nil }

func (s *store) StoreDeviceAuthorization(ctx context.Context, _, deviceCode, userCode string, expires time.Time, scopes []string) error {
	if _, err := s.change(withUserCode(userCode), nil); err == nil {
		return op.ErrDuplicateUserCode
	}
	from, _ := ctx.Value(fromKey{}).(string)
	return s.add(request{
		id:         rand.Text(),
		asked:      oidc.AuthRequest{Scopes: scopes},
		expires:    expires,
		deviceCode: deviceCode,
		userCode:   userCode,
		from:       from,
		interval:   s.provider.options.PollInterval,
	})
}

// withUserCode finds a device by what a person types.
func withUserCode(typed string) func(*request) bool {
	plain := strings.NewReplacer("-", "", " ", "").Replace
	return func(r *request) bool {
		return r.userCode != "" && same(plain(r.userCode), strings.ToUpper(plain(typed)))
	}
}

// GetDeviceAuthorizatonState is what a device is told that polls. Its answer is given once.
func (s *store) GetDeviceAuthorizatonState(_ context.Context, _, deviceCode string) (*op.DeviceAuthorizationState, error) {
	expired := &op.DeviceAuthorizationState{} // has expired long ago
	r, err := s.change(func(r *request) bool { return r.deviceCode != "" && same(r.deviceCode, deviceCode) }, func(r *request) error {
		now := time.Now()
		// A tenth is let pass: a network does not keep the pace of who keeps it.
		early := !r.polled.IsZero() && now.Sub(r.polled) < r.interval*9/10
		r.polled = now
		if early {
			r.interval += 5 * time.Second
			return context.DeadlineExceeded // which the library makes slow_down of
		}
		if r.allowed || r.denied {
			delete(s.requests, r.id)
		}
		return nil
	})
	switch {
	case errors.Is(err, errNotKnown) || s.provider.has(ExpiringCode):
		return expired, nil
	case err != nil:
		return nil, err
	}
	return &op.DeviceAuthorizationState{
		ClientID: clientID,
		Scopes:   r.asked.Scopes,
		Expires:  r.expires,
		Done:     r.allowed,
		Denied:   r.denied || s.provider.has(Denying),
		Subject:  r.user.ID,
		AMR:      r.GetAMR(),
		AuthTime: r.signedIn,
	}, nil
}

// client is the host agent, as the provider knows it.
type client struct{ device bool }

func (client) GetID() string                        { return clientID }
func (client) RedirectURIs() []string               { return []string{RedirectURI} }
func (client) PostLogoutRedirectURIs() []string     { return nil }
func (client) ApplicationType() op.ApplicationType  { return op.ApplicationTypeNative }
func (client) AuthMethod() oidc.AuthMethod          { return oidc.AuthMethodNone }
func (client) ResponseTypes() []oidc.ResponseType   { return []oidc.ResponseType{oidc.ResponseTypeCode} }
func (c client) GrantTypes() []oidc.GrantType       { return grants(c.device) }
func (client) LoginURL(id string) string            { return "/sign-in?request=" + id }
func (client) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeBearer }
func (client) IDTokenLifetime() time.Duration       { return tokenLifetime }
func (client) DevMode() bool                        { return false }
func (client) IsScopeAllowed(scope string) bool     { return slices.Contains(scopes(), scope) }
func (client) IDTokenUserinfoClaimsAssertion() bool { return true }
func (client) ClockSkew() time.Duration             { return 0 }

func (client) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return slices.Clone[[]string]
}

func (client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return slices.Clone[[]string]
}

type signingKey struct{ provider *Provider }

func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return algorithm }
func (k signingKey) Key() any                                    { return k.provider.key }
func (k signingKey) ID() string                                  { return k.provider.keyID }

type publicKey struct{ signingKey }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return algorithm }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return k.provider.key.Public() }
