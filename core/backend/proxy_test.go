package backend

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// tunnel is a proxy's work: it answers CONNECT and carries what follows.
func tunnel(conn net.Conn, authorization string) io.Reader {
	nothing := strings.NewReader("")
	request, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil || request.Method != http.MethodConnect {
		return nothing
	}
	if request.Header.Get("Proxy-Authorization") != authorization {
		_, _ = io.WriteString(conn, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
		return nothing
	}
	target, err := net.Dial("tcp", request.Host)
	if err != nil {
		return nothing
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	carry(conn, target)
	return nothing
}

func carry(conn, target net.Conn) {
	go func() { _, _ = io.Copy(target, conn); _ = target.Close() }()
	_, _ = io.Copy(conn, target)
}

// socks is the same for SOCKS5, without a sign-in and to IPv4 addresses.
func socks(conn net.Conn) io.Reader {
	var request [10]byte
	_, _ = io.ReadFull(conn, request[:3])
	_, _ = conn.Write([]byte{5, 0})
	_, _ = io.ReadFull(conn, request[:])
	target, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: request[4:8], Port: int(request[8])<<8 | int(request[9])})
	if err == nil {
		_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		carry(conn, target)
	}
	return strings.NewReader("")
}

// TestProxy: a proxy carries the connection and sees neither the key nor anything else of it.
func TestProxy(t *testing.T) {
	signer := newSigner(t, nil)
	cert := signer.issue(nil)
	for _, test := range []struct {
		scheme string
		user   *url.Userinfo
		serve  func(net.Conn) io.Reader
	}{
		{"http", nil, func(conn net.Conn) io.Reader { return tunnel(conn, "") }},
		{"http", url.UserPassword("me", "hush"), func(conn net.Conn) io.Reader { return tunnel(conn, "Basic bWU6aHVzaA==") }},
		{"https", nil, func(conn net.Conn) io.Reader {
			return tunnel(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}}), "")
		}},
		{"socks5", nil, socks},
	} {
		t.Run(test.scheme+" "+test.user.String(), func(t *testing.T) {
			handler, accepted := peers(t)
			proxy := listen(t)
			go proxy.serve(test.serve)
			link := newLink(t, serveTLS(t, handler))
			link.dialer.proxyRoots = x509.NewCertPool()
			link.dialer.proxyRoots.AddCert(signer.cert)
			link.dialer.proxy = http.ProxyURL(&url.URL{Scheme: test.scheme, User: test.user, Host: proxy.Addr().String()})
			link.start()
			peer := <-accepted
			defer peer.Close()
			if got := peer.request.Header.Get("Authorization"); got != "Bearer "+testKey {
				t.Errorf("Authorization %q", got)
			}
			peer.greet()
			proxy.leaked(t)
		})
	}
}

// TestProxyRefuses: whatever a proxy answers, the link lives on and has a sentence for it.
func TestProxyRefuses(t *testing.T) {
	for _, test := range []struct {
		name, scheme, answer, says string
	}{
		{"no reason phrase", "http", "HTTP/1.1 407\r\n\r\n", "wants a sign-in"},
		{"forbidden", "http", "HTTP/1.1 403 Forbidden\r\n\r\n", "does not connect to backend.test:443 (HTTP 403)"},
		{"no status", "http", "HTTP/1.1\r\n\r\n", "failed while connecting"},
		{"no HTTP", "http", "\x15\x03\x01\x00\x02\x02\x28", "failed while connecting"},
		{"silence", "http", "", "did not answer in time while connecting"},
		{"endless header", "http", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxHandshake), "the answer is too long"},
		{"no TLS", "https", "HTTP/1.1 200 OK\r\n\r\n", "failed while connecting: securing the way to it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			proxy := listen(t)
			go proxy.serve(func(conn net.Conn) io.Reader {
				_, _ = conn.Read(make([]byte, 1024))
				_, _ = io.WriteString(conn, test.answer)
				return conn
			})
			link := newLink(t, options("wss://backend.test", nil))
			if test.answer == "" {
				link.dialer.times.connect = 50 * time.Millisecond
			}
			link.dialer.proxy = http.ProxyURL(&url.URL{Scheme: test.scheme, Host: proxy.Addr().String()})
			link.start()
			h := link.await(func(h protocol.LinkHealth) bool { return h.Problem != "" })
			if !strings.HasPrefix(h.Problem, "The proxy "+proxy.Addr().String()) || !strings.Contains(h.Problem, test.says) {
				t.Errorf("says %q, want %q", h.Problem, test.says)
			}
		})
	}
}

// TestProxyOfNoUse: a proxy that cannot even be dialled is a sentence too, without its password.
func TestProxyOfNoUse(t *testing.T) {
	for says, proxy := range map[string]func(*http.Request) (*url.URL, error){
		"no valid address":      func(*http.Request) (*url.URL, error) { return nil, errors.New("invalid proxy address: hush") },
		"unknown kind (gopher)": http.ProxyURL(&url.URL{Scheme: "gopher", User: url.UserPassword("me", "hush"), Host: "proxy"}),
	} {
		link := newLink(t, options("wss://backend.test", nil))
		link.dialer.proxy = proxy
		link.start()
		h := link.await(func(h protocol.LinkHealth) bool { return h.Problem != "" })
		if !strings.Contains(h.Problem, says) || strings.Contains(h.Problem+link.log.String(), "hush") {
			t.Errorf("says %q, want %q", h.Problem, says)
		}
	}
}

// TestEndlessAnswer: the backend's answer is bounded as a proxy's is.
func TestEndlessAnswer(t *testing.T) {
	link := newLink(t, serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 2*maxHandshake))
	}))).start()
	h := link.await(func(h protocol.LinkHealth) bool { return h.Problem != "" })
	if !strings.Contains(h.Problem, "failed while upgrading: the answer is too long") {
		t.Errorf("says %q", h.Problem)
	}
}

// TestProxyDown: the sentence names the proxy, not the backend.
func TestProxyDown(t *testing.T) {
	closed := listen(t)
	_ = closed.Close()
	link := newLink(t, options("wss://backend.test", nil))
	link.dialer.proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: closed.Addr().String()})
	link.start()
	h := link.await(func(h protocol.LinkHealth) bool { return h.Problem != "" })
	if !strings.HasPrefix(h.Problem, "The proxy "+closed.Addr().String()+" refuses connections") {
		t.Errorf("says %q", h.Problem)
	}
}
