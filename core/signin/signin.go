// Package signin gets this host a key from the marketplace. A person signs in with the marketplace's
// OpenID provider, by a browser on this machine or by a code on another device; a fleet shows an
// enrolment token. Either is exchanged once for a host key, and then forgotten. The package also
// exchanges a key for a new one, asks what a key is good for, and gives a key back. It keeps nothing.
package signin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/secret"
)

// Options say whom to sign in with, and for what marketplace.
type Options struct {
	Issuer   string   // the OpenID provider, spelled as it names itself; "": only Enrol, Rotate, Revoke and Self work
	ClientID string   // what the provider knows the agent by; a public client, it has no secret
	Scopes   []string // nil: openid profile email host:enroll
	API      string   // https address of the marketplace's HTTP API; /v1/hosts… is appended
	// CAPEM are the authorities trusted for the API, in place of the system's; nil: the system's. The
	// provider may show a certificate of either: a private marketplace can have a public one.
	CAPEM []byte
	// AllowInsecureLoopback admits http:// for issuer and API on a loopback address.
	AllowInsecureLoopback bool
	Version               string       // of the agent
	Log                   *slog.Logger // nil: none
}

// Client signs in with one marketplace. Its methods may be called at the same time.
type Client struct {
	issuer, clientID string
	scopes           []string
	api              string
	insecure         bool
	version          string
	authorities      []byte            // PEM; nil: the system's alone
	transport        http.RoundTripper // to the API
	log              *slog.Logger
	times            timing
}

// timing holds every duration, so that a test can wait less.
type timing struct {
	discovery time.Duration
	request   time.Duration // one request to the provider or the API
	header    time.Duration // for a browser to say what it wants
	person    time.Duration // for somebody to sign in; a provider's codes live about as long
	finish    time.Duration // from the browser's return to the host key
	farewell  time.Duration // for what is under way when it is over: the last page, a registration
	retry     time.Duration // before the first repetition; it doubles
	patience  time.Duration // the longest wait the API may ask for
	poll      time.Duration // at least, between two questions whether a code was confirmed; whole seconds
}

// Host is what the marketplace is told of this machine.
type Host struct {
	InstallID     string // the same for all sign-ins of one installation: its host keeps its node id
	Hostname      string
	OS, Arch      string
	AgentVersion  string // "": that of the options
	Hardware      string // in one line, for a person
	ReplaceNodeID string // a node this host takes the place of, if the account has it; "": none
}

// Credential is a host key, and what the marketplace says of it.
type Credential struct {
	Key           secret.String
	NodeID, KeyID string
	Owner         string    // e-mail address, to be shown only; "": not told
	ExpiresAt     time.Time // zero: never
}

// Self is what the marketplace says of a host key.
type Self struct {
	NodeID, KeyID string
	Owner         string    // e-mail address, to be shown only; "": not told
	ExpiresAt     time.Time // zero: never
}

// Prompt is what a person needs to sign in.
type Prompt struct {
	URL       string // to open in a browser
	UserCode  string // to type or compare there; "" when the browser comes back by itself
	ExpiresAt time.Time
}

// ErrNoDeviceGrant says that the provider does not sign in by code.
var ErrNoDeviceGrant = say(nil, "This marketplace does not offer signing in by code; sign in with a browser on this machine, or use an enrolment token.")

// New checks the options. It connects to nothing.
func New(o Options) (*Client, error) {
	c := &Client{
		issuer: o.Issuer, clientID: o.ClientID, scopes: o.Scopes,
		api: strings.TrimSuffix(o.API, "/"), insecure: o.AllowInsecureLoopback,
		version: o.Version, authorities: o.CAPEM, log: o.Log,
		times: timing{
			discovery: 10 * time.Second,
			request:   15 * time.Second,
			header:    5 * time.Second,
			person:    10 * time.Minute,
			finish:    90 * time.Second,
			farewell:  2 * time.Second,
			retry:     time.Second,
			patience:  20 * time.Second,
			poll:      5 * time.Second,
		},
	}
	if c.scopes == nil {
		c.scopes = []string{"openid", "profile", "email", "host:enroll"}
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if err := c.checkBase("the marketplace's address", o.API); err != nil {
		return nil, err
	}
	if o.Issuer != "" {
		if err := c.checkBase("the sign-in's issuer", o.Issuer); err != nil {
			return nil, err
		}
		if o.ClientID == "" {
			return nil, errors.New("signing in needs the client id that the marketplace has given this agent")
		}
	}
	var pool *x509.CertPool
	if o.CAPEM != nil {
		pool = x509.NewCertPool()
		if !pool.AppendCertsFromPEM(o.CAPEM) {
			return nil, errors.New("the file of authorities holds no certificate in PEM form")
		}
	}
	c.transport = transport(pool)
	return c, nil
}

// transport reaches servers whose certificates those of pool have signed; nil: the system's authorities.
func transport(pool *x509.CertPool) http.RoundTripper {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment, // never for loopback
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool},
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		DisableKeepAlives:      true, // a few requests in a host's life: nothing stays open behind them
	}
}

// toProvider is the transport to the provider. The system's authorities take some memory, so they are
// read for a sign-in alone.
func (c *Client) toProvider() http.RoundTripper {
	if c.authorities == nil {
		return c.transport
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		c.log.Debug("reading the system's authorities", "error", err)
		pool = x509.NewCertPool()
	}
	pool.AppendCertsFromPEM(c.authorities)
	return transport(pool)
}

// Enrol exchanges an enrolment token for a host key. The error is a *Refusal where the marketplace
// itself says no.
func (c *Client) Enrol(ctx context.Context, h Host, token secret.String) (Credential, error) {
	if !visible(token.Reveal(), minKey, maxBearer) {
		return Credential{}, say(nil, "This is no enrolment token: it takes %d or more letters, digits and signs of ASCII without spaces; copy it again from the marketplace.", minKey)
	}
	return c.register(ctx, h, token)
}

// dial connects, and takes "localhost" at its word: a name may be made to point anywhere.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if host, _, _ := net.SplitHostPort(address); strings.EqualFold(host, "localhost") && !loopback(conn.RemoteAddr().(*net.TCPAddr).IP.String()) {
		_ = conn.Close()
		return nil, fmt.Errorf("connecting to %s: it is not this machine", address)
	}
	return conn, nil
}
