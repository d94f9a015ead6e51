// Package identity is an OpenID provider on loopback that stands for the marketplace's: the paths of
// Clerk, its one public client, its strictness, and real pages to sign in, to consent and to approve
// a device. Its access tokens enrol hosts at the sandbox's backend.
package identity

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/sandbox/ca"
)

const (
	// RedirectURI is what the client has registered; a request may add a port to it, and nothing else.
	RedirectURI = "http://127.0.0.1/callback"
	// EnrolScope is the scope of a token that may enrol hosts.
	EnrolScope = "host:enroll"
	// DefaultEmail is the address of the user that there is when none is given.
	DefaultEmail = "owner@example.com"

	clientID      = "dc_host_agent_sandbox"
	application   = "DistributedCompute host agent"
	codeLifetime  = 10 * time.Minute
	tokenLifetime = 24 * time.Hour
	maxBody       = 64 << 10
)

// The provider's paths, which are Clerk's.
const (
	authorizePath = "/oauth/authorize"
	tokenPath     = "/oauth/token"
	userinfoPath  = "/oauth/userinfo"
	revokePath    = "/oauth/token/revoke"
	devicePath    = "/oauth/device_authorization"
	keysPath      = "/.well-known/jwks.json"
)

// User is somebody who can sign in.
type User struct {
	ID       string // "user_…"; "": drawn
	Email    string
	Name     string
	Password secret.String // empty: drawn
}

// Options say how a provider behaves. The zero value of a field but CA has a usable meaning.
type Options struct {
	CA    *ca.CA // signs the provider's certificate
	Users []User // none: one, with DefaultEmail and a drawn password
	// Device switches the device authorization grant on.
	Device bool
	// PollInterval is the pace at which devices may ask, in whole seconds; 0: 5 s.
	PollInterval time.Duration
	Log          *slog.Logger // nil: nothing is logged
}

// Fault is a way in which a provider does not do what is asked of it.
type Fault int

// The faults.
const (
	Healthy      Fault = iota
	Denying            // every authorization is denied before anybody is asked
	ExpiringCode       // authorization and device codes have expired when they are redeemed
	Down               // every request is answered 503
)

// Provider runs until Close. Its methods may be called at any time, from anywhere.
type Provider struct {
	options Options
	issuer  string
	users   []User
	key     *rsa.PrivateKey
	keyID   string
	roots   *x509.CertPool
	store   *store
	oauth   *op.Provider

	server  *http.Server
	serving sync.WaitGroup

	mu    sync.Mutex
	fault Fault
}

// Start listens on a free port of 127.0.0.1 and returns. ctx bounds the start alone.
func Start(ctx context.Context, options Options) (*Provider, error) {
	if options.CA == nil {
		return nil, errors.New("starting identity provider: Options.CA is missing")
	}
	if options.PollInterval == 0 {
		options.PollInterval = 5 * time.Second
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("generating the identity provider's key: %w", err)
	}
	cert, err := options.CA.Issue(time.Now().AddDate(1, 0, 0), "127.0.0.1")
	if err != nil {
		return nil, err
	}
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for sign-ins: %w", err)
	}
	p := &Provider{
		options: options,
		issuer:  "https://" + listener.Addr().String(),
		users:   complete(options.Users),
		key:     key,
		keyID:   "ins_" + rand.Text(),
		roots:   options.CA.Pool(),
	}
	p.store = &store{provider: p, requests: map[string]*request{}, tokens: map[string]token{}}
	p.oauth, err = op.NewProvider(
		&op.Config{
			CodeMethodS256:      true,
			SupportedScopes:     scopes(),
			DeviceAuthorization: op.DeviceAuthorizationConfig{Lifetime: codeLifetime, PollInterval: options.PollInterval, UserFormPath: "/device", UserCode: op.UserCodeBase20},
		},
		p.store,
		op.StaticIssuer(p.issuer),
		op.WithCrypto(mint{p}),
		op.WithCORSOptions(nil),
		op.WithCustomAuthEndpoint(op.NewEndpoint(authorizePath)),
		op.WithCustomTokenEndpoint(op.NewEndpoint(tokenPath)),
		op.WithCustomUserinfoEndpoint(op.NewEndpoint(userinfoPath)),
		op.WithCustomRevocationEndpoint(op.NewEndpoint(revokePath)),
		op.WithCustomKeysEndpoint(op.NewEndpoint(keysPath)),
		op.WithCustomDeviceAuthorizationEndpoint(op.NewEndpoint(devicePath)),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("setting up the identity provider: %w", err), listener.Close())
	}
	p.server = &http.Server{
		Handler:           p.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		ErrorLog:          slog.NewLogLogger(options.Log.Handler(), slog.LevelDebug),
	}
	secured := tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	p.serving.Go(func() { _ = p.server.Serve(secured) })
	return p, nil
}

// complete fills in what the users lack.
func complete(users []User) []User {
	if len(users) == 0 {
		users = []User{{Email: DefaultEmail, Name: "Sandbox Owner"}}
	}
	users = slices.Clone(users)
	for i := range users {
		if users[i].ID == "" {
			users[i].ID = "user_" + rand.Text()
		}
		if users[i].Password.Empty() {
			users[i].Password = secret.New(rand.Text()[:12])
		}
	}
	return users
}

// Close ends the provider.
func (p *Provider) Close() error {
	err := p.server.Close()
	p.serving.Wait()
	return err
}

// Issuer is the provider's address, without a slash at its end.
func (p *Provider) Issuer() string { return p.issuer }

// ClientID names the one client, which has no secret.
func (p *Provider) ClientID() string { return clientID }

// Users are those who can sign in, with what was drawn for them.
func (p *Provider) Users() []User { return slices.Clone(p.users) }

// Fail makes a fault take the place of the one before; Healthy ends it.
func (p *Provider) Fail(fault Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fault
}

func (p *Provider) has(fault Fault) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault == fault
}

// scopes are all that the client may ask for.
func scopes() []string {
	return []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail, EnrolScope}
}

func grants(device bool) []oidc.GrantType {
	if device {
		return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeDeviceCode}
	}
	return []oidc.GrantType{oidc.GrantTypeCode}
}

// handler has the paths that Clerk has, and no other of the library's.
func (p *Provider) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", p.discovery)
	mux.Handle("GET "+keysPath, p.oauth)
	mux.HandleFunc(authorizePath, p.authorize)
	mux.Handle("GET "+authorizePath+"/callback", p.oauth)
	mux.HandleFunc("POST "+tokenPath, p.token)
	mux.Handle(userinfoPath, p.oauth)
	mux.Handle("POST "+revokePath, p.oauth)
	mux.HandleFunc("GET /sign-in", p.signInPage)
	mux.HandleFunc("POST /sign-in", p.signIn)
	mux.HandleFunc("GET /consent", p.consentPage)
	mux.HandleFunc("POST /consent", p.consent)
	if p.options.Device {
		mux.HandleFunc("POST "+devicePath, p.device)
		mux.HandleFunc("GET /device", p.devicePage)
		mux.HandleFunc("POST /device", p.enterDeviceCode)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.has(Down) {
			http.Error(w, "The sandbox's identity provider is down.", http.StatusServiceUnavailable)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

// discovery says what is there; the library's own answer names grants and endpoints that are not.
func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	document := oidc.DiscoveryConfiguration{
		Issuer:                                 p.issuer,
		AuthorizationEndpoint:                  p.issuer + authorizePath,
		TokenEndpoint:                          p.issuer + tokenPath,
		UserinfoEndpoint:                       p.issuer + userinfoPath,
		RevocationEndpoint:                     p.issuer + revokePath,
		JwksURI:                                p.issuer + keysPath,
		ScopesSupported:                        scopes(),
		ResponseTypesSupported:                 []string{string(oidc.ResponseTypeCode)},
		ResponseModesSupported:                 []string{string(oidc.ResponseModeQuery), string(oidc.ResponseModeFormPost)},
		GrantTypesSupported:                    grants(p.options.Device),
		SubjectTypesSupported:                  []string{"public"},
		IDTokenSigningAlgValuesSupported:       []string{string(algorithm)},
		TokenEndpointAuthMethodsSupported:      []oidc.AuthMethod{oidc.AuthMethodNone},
		RevocationEndpointAuthMethodsSupported: []oidc.AuthMethod{oidc.AuthMethodNone},
		ClaimsSupported:                        []string{"sub", "iss", "aud", "exp", "iat", "nonce", "email", "email_verified", "name"},
		CodeChallengeMethodsSupported:          []oidc.CodeChallengeMethod{oidc.CodeChallengeMethodS256},
	}
	if p.options.Device {
		document.DeviceAuthorizationEndpoint = p.issuer + devicePath
	}
	answer(w, http.StatusOK, document)
}
