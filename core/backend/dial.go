package backend

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
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
	url        *url.URL
	key        func(context.Context) (secret.String, error)
	used       secret.String // the key of the latest dial
	userAgent  string
	tls        *tls.Config
	proxy      func(*http.Request) (*url.URL, error)
	proxyRoots *x509.CertPool // who may sign a proxy's certificate; nil: the system's authorities
	connect    func(ctx context.Context, network, address string) (net.Conn, error)
	times      timing
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
	key, err := d.key(ctx)
	if unreadable, ok := errors.AsType[*KeyUnreadable](err); ok {
		return nil, &setback{problem: sentence(unreadable.Problem), kind: locked, cause: err}
	}
	if err != nil {
		return nil, &setback{problem: "There is no host key to sign on with: " + sentence(err.Error()), kind: keyless, cause: err}
	}
	if key.Empty() {
		return nil, &setback{problem: "This host is not signed in.", kind: keyless}
	}
	d.used = key
	proxy, err := d.route()
	if err != nil {
		return nil, err
	}
	try := attempt{dialer: d, proxy: proxy, phase: connecting, limit: time.Now().Add(d.times.dial)}
	defer try.release()
	socket := websocket.Dialer{
		NetDialContext: func(dialing context.Context, network, address string) (net.Conn, error) {
			return try.open(ctx, dialing, network, address)
		},
		TLSClientConfig:  d.tls,
		HandshakeTimeout: d.times.dial,
		Subprotocols:     []string{protocol.Subprotocol},
	}
	if proxy != nil && proxy.Scheme == "socks5" {
		socket.Proxy, try.proxy = http.ProxyURL(proxy), nil // the library knows the way, and opens it to the proxy
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

// changedKey tells whether the key is another one by now than that of the latest dial, or gone; it looks
// for so long.
func (d *dialer) changedKey(ctx context.Context, patience time.Duration) bool {
	const pace = 100 * time.Millisecond
	for ; ; patience -= pace {
		key, err := d.key(ctx)
		if changed := err == nil && !key.Equal(d.used); changed || patience <= 0 {
			return changed
		}
		select {
		case <-time.After(pace):
		case <-ctx.Done():
			return false
		}
	}
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
	proxy *url.URL // an HTTP proxy to go through, or nil
	phase phase
	limit time.Time // of all phases together
	peer  string    // what was dialled
	conn  *bounded  // what carries the handshakes
	leave func() bool
}

// open connects, through the proxy if there is one. Until release, the end of ctx closes the
// connection: the handshakes after it know only deadlines. ctx is the caller's own, dialing ends with
// the dial.
func (a *attempt) open(ctx, dialing context.Context, network, address string) (net.Conn, error) {
	a.peer = address
	if a.proxy != nil {
		a.peer = proxyAddress(a.proxy)
	}
	dialing, cancel := context.WithTimeout(dialing, a.times.connect)
	defer cancel()
	conn, err := a.connect(dialing, network, a.peer)
	if err != nil {
		return nil, err
	}
	a.conn, a.leave = &bounded{conn, maxHandshake}, context.AfterFunc(ctx, func() { _ = conn.Close() })
	if a.proxy == nil {
		return a.conn, nil
	}
	way, err := a.through(dialing, a.conn, a.proxy, address)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return way, nil
}

func (a *attempt) release() {
	if a.leave != nil {
		a.leave()
		a.conn.left = math.MaxInt64
	}
}

// maxHandshake bounds all that is read until the WebSocket is open: the libraries that read headers
// have no bound of their own.
const maxHandshake = 256 << 10

var errLongHandshake = errors.New("the answer is too long")

// bounded is a connection that gives no more than what is left.
type bounded struct {
	net.Conn
	left int64
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errLongHandshake
	}
	n, err := b.Conn.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
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
