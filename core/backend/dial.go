package backend

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"time"

	"github.com/gorilla/websocket"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/secret"
)

// dialer makes connections to one backend.
type dialer struct {
	url       *url.URL
	key       func() (secret.String, error)
	userAgent string
	tls       *tls.Config
	proxy     func(*http.Request) (*url.URL, error)
	connect   func(ctx context.Context, network, address string) (net.Conn, error)
	times     timing
}

var errWeakKey = errors.New("the certificate's RSA key is shorter than 2048 bits")

// secureConfig trusts pool alone, or the system's authorities where it is nil.
func secureConfig(host string, pool *x509.CertPool) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		RootCAs:            pool,
		ServerName:         host,
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
		VerifyConnection: func(state tls.ConnectionState) error {
			for _, cert := range state.PeerCertificates {
				if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
					return errWeakKey
				}
			}
			return nil
		},
	}
}

// dial opens one connection. Its errors are setbacks. The key leaves only after the server has
// proved who it is, in the header of the upgrade.
func (d *dialer) dial(ctx context.Context) (*websocket.Conn, error) {
	key, err := d.key()
	if err != nil {
		return nil, &setback{problem: "There is no host key to sign on with: " + clean(err.Error()) + ".", kind: keyless, cause: err}
	}
	if key.Empty() {
		return nil, &setback{problem: "There is no host key to sign on with; sign in.", kind: keyless}
	}
	try := attempt{dialer: d, phase: connecting, limit: time.Now().Add(d.times.dial)}
	defer try.release()
	socket := websocket.Dialer{
		NetDialContext: func(dialing context.Context, network, address string) (net.Conn, error) {
			return try.open(ctx, dialing, network, address)
		},
		Proxy:            d.proxy,
		TLSClientConfig:  d.tls,
		HandshakeTimeout: d.times.dial,
		Subprotocols:     []string{protocol.Subprotocol},
	}
	header := http.Header{"Authorization": {"Bearer " + key.Reveal()}, "User-Agent": {d.userAgent}}
	conn, answer, err := socket.DialContext(httptrace.WithClientTrace(ctx, try.trace()), d.url.String(), header)
	switch {
	case err == nil && answer.Header.Get("Sec-Websocket-Extensions") != "":
		_ = conn.Close()
		return nil, &setback{problem: "The server insists on compression nobody asked for; check the backend's address."}
	case err == nil:
		return conn, nil
	case answer != nil && errors.Is(err, websocket.ErrBadHandshake):
		body, _ := io.ReadAll(answer.Body) // at most the first KiB, already in memory
		return nil, explainAnswer(answer, body, d.server(), time.Now())
	}
	return nil, explainDial(err, try.phase, d.server(), try.peer)
}

// server is the backend's host and port.
func (d *dialer) server() string {
	port := d.url.Port()
	if port == "" {
		port = map[string]string{"wss": "443", "ws": "80"}[d.url.Scheme]
	}
	return net.JoinHostPort(d.url.Hostname(), port)
}

// attempt is one dial: it bounds each phase on its own and remembers how far it came.
type attempt struct {
	*dialer
	phase phase
	limit time.Time // of all phases together
	peer  string    // what was dialled
	conn  net.Conn  // what carries the handshakes
	leave func() bool
}

// open connects. Until release, the end of ctx closes the connection: the handshakes after it
// know only deadlines. ctx is the caller's own, dialing ends with the dial.
func (a *attempt) open(ctx, dialing context.Context, network, address string) (net.Conn, error) {
	a.peer = address
	dialing, cancel := context.WithTimeout(dialing, a.times.connect)
	defer cancel()
	conn, err := a.connect(dialing, network, address)
	if err != nil {
		return nil, err
	}
	a.conn, a.leave = conn, context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn, nil
}

func (a *attempt) release() {
	if a.leave != nil {
		a.leave()
	}
}

// trace follows the phases that come after connecting.
func (a *attempt) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn:           func(httptrace.GotConnInfo) { a.enter(upgrading, a.times.upgrade) },
		TLSHandshakeStart: func() { a.enter(securing, a.times.tls) },
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			if err == nil {
				a.enter(upgrading, a.times.upgrade)
			}
		},
	}
}

func (a *attempt) enter(next phase, within time.Duration) {
	a.phase = next
	deadline := time.Now().Add(within)
	if a.limit.Before(deadline) {
		deadline = a.limit
	}
	_ = a.conn.SetDeadline(deadline) // fails only on a closed connection, which the handshake notices
}

// loopbackOnly connects to this machine and nowhere else, whatever a name resolves to.
func loopbackOnly(connect func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := connect(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if peer, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err != nil || !peer.Addr().IsLoopback() {
			_ = conn.Close()
			return nil, fmt.Errorf("connecting without TLS: %s is not this machine", address)
		}
		return conn, nil
	}
}
