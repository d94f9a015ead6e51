package backend

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/secret"
)

// signer issues the certificates a careful authority would not.
type signer struct {
	t    *testing.T
	cert *x509.Certificate
	key  any
}

func newSigner(t *testing.T, change func(*x509.Certificate)) *signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := &signer{t: t, key: key}
	template := s.template("authority", func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		c.ExtKeyUsage = nil
		if change != nil {
			change(c)
		}
	})
	s.cert = s.sign(template, template, &key.PublicKey)
	return s
}

func (s *signer) template(name string, change func(*x509.Certificate)) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		s.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(c)
	}
	return c
}

func (s *signer) sign(template, parent *x509.Certificate, public any) *x509.Certificate {
	s.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	return cert
}

// issue signs a server's certificate.
func (s *signer) issue(change func(*x509.Certificate)) tls.Certificate {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	cert := s.sign(s.template("server", change), s.cert, &key.PublicKey)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func (s *signer) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Raw})
}

// eavesdropper is a TLS server on a loopback port that keeps what reaches it, before and after
// decryption, and answers nothing.
type eavesdropper struct {
	net.Listener
	mu    sync.Mutex
	heard bytes.Buffer
	calls int
}

func listen(t *testing.T) *eavesdropper {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &eavesdropper{Listener: listener}
	t.Cleanup(func() { _ = listener.Close() })
	return e
}

// serve handles connections until the listener is closed.
func (e *eavesdropper) serve(handle func(net.Conn) io.Reader) {
	for {
		conn, err := e.Accept()
		if err != nil {
			return
		}
		e.mu.Lock()
		e.calls++
		e.mu.Unlock()
		go func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.Copy(e, handle(&recorded{conn, e}))
		}()
	}
}

func (e *eavesdropper) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard.Write(p)
}

// recorded keeps the bytes that a connection carries.
type recorded struct {
	net.Conn
	to io.Writer
}

func (r *recorded) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	_, _ = r.to.Write(p[:n])
	return n, err
}

func (e *eavesdropper) leaked(t *testing.T) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.calls == 0 {
		t.Error("nobody called the server")
	}
	heard := strings.ReplaceAll(e.heard.String(), "Proxy-Authorization", "") // a proxy's own
	if strings.Contains(heard, testKey) || strings.Contains(heard, "Authorization") || strings.Contains(heard, "Bearer") {
		t.Errorf("the server heard %d bytes with a credential", len(heard))
	}
}

// TestBadServers: a server that cannot prove who it is gets no byte of the key, is not tried again
// for a minute, and the sentence says what is wrong with it.
func TestBadServers(t *testing.T) {
	good := newSigner(t, nil)
	stranger := newSigner(t, func(c *x509.Certificate) { c.Subject.CommonName = "stranger" })
	constrained := newSigner(t, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.org"} })
	selfSigned := func() tls.Certificate {
		s := newSigner(t, func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage, c.ExtKeyUsage = false, x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})
		return tls.Certificate{Certificate: [][]byte{s.cert.Raw}, PrivateKey: s.key}
	}
	unnamed := func(c *x509.Certificate) { c.IPAddresses = nil }
	intermediate := func() tls.Certificate {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		template := good.template("intermediate", func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
		})
		middle := &signer{t: t, cert: good.sign(template, good.cert, &key.PublicKey), key: key}
		return middle.issue(nil) // without the intermediate's own certificate
	}
	weak := func() tls.Certificate {
		key, err := rsa.GenerateKey(rand.Reader, 1024)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{good.sign(good.template("server", nil), good.cert, &key.PublicKey).Raw}, PrivateKey: key}
	}
	versions := func(lowest, highest uint16) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{good.issue(nil)}, MinVersion: lowest, MaxVersion: highest}
	}
	certificate := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	for _, test := range []struct {
		name   string
		server *tls.Config
		says   string
	}{
		{"expired", certificate(good.issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })), "expired on"},
		{"not yet valid", certificate(good.issue(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) })), "is not valid before"},
		{"wrong host", certificate(good.issue(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} })), "is for another name"},
		{"no host", certificate(good.issue(unnamed)), "is for another name"},
		{"self-signed", certificate(selfSigned()), "signed by itself"},
		{"untrusted root", certificate(stranger.issue(nil)), "an authority this machine does not trust"},
		{"incomplete chain", certificate(intermediate()), "an authority this machine does not trust"},
		{"SHA-1", certificate(good.issue(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })), "signed with SHA-1"},
		{"RSA of 1024 bits", certificate(weak()), "too short"},
		{"TLS 1.0", versions(tls.VersionTLS10, tls.VersionTLS10), "too old to be safe"},
		{"TLS 1.1", versions(tls.VersionTLS11, tls.VersionTLS11), "too old to be safe"},
		{"authority for other names", certificate(constrained.issue(func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} })), "may not sign for that name"},
		{"for clients only", certificate(good.issue(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })), "not made for servers"},
		{"for signing code", certificate(good.issue(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} })), "not made for servers"},
		{"plain HTTP", nil, "does not speak TLS"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := listen(t)
			go server.serve(func(conn net.Conn) io.Reader {
				if test.server == nil {
					_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
					return conn
				}
				return tls.Server(conn, test.server)
			})
			o := options("wss://"+server.Addr().String(), append(good.pem(), constrained.pem()...))
			if test.name == "authority for other names" {
				o.URL = strings.Replace(o.URL, "127.0.0.1", "localhost", 1)
			}
			link := newLink(t, o).start()
			h := link.await(func(h protocol.LinkHealth) bool { return h.Problem != "" })
			if !strings.Contains(h.Problem, test.says) || strings.Count(h.Problem, ". ") > 0 || !strings.HasSuffix(h.Problem, ".") {
				t.Errorf("says %q, want one sentence with %q", h.Problem, test.says)
			}
			if pause := time.Until(h.NextTry); pause < 59*time.Second || h.NeedsSignIn {
				t.Errorf("tries again in %v; %+v", pause, h)
			}
			server.leaked(t)
		})
	}
}

// TestAnswers: what a server says instead of opening a WebSocket becomes a sentence of its own.
func TestAnswers(t *testing.T) {
	for _, test := range []struct {
		name          string
		status        int
		header, value string
		body          string
		says          string
	}{
		{"captive portal", 200, "", "", "<html>Welcome</html>", "captive portal"},
		{"redirect", 302, "Location", "http://portal.example.com/login?x=1", "", "points elsewhere (HTTP 302 to portal.example.com), which is not followed"},
		{"permanent redirect", 301, "Location", "http://127.0.0.1:1/", "", "not followed"},
		{"redirect to nowhere", 307, "", "", "", "points elsewhere (HTTP 307)"},
		{"no such path", 404, "", "", "", "no backend at this path"},
		{"upgrade required", 426, "", "", "", "does not open a WebSocket (HTTP 426)"},
		{"in trouble", 502, "", "", "", "The backend is in trouble (HTTP 502)"},
		{"overloaded", 503, "Retry-After", "60", "", "overloaded or being maintained (HTTP 503)"},
		{"portal that wants a password", 401, "", "", "<html>", "captive portal"},
		{"key refused", 403, "", "", `{"error":{"code":"forbidden","message":"Key \u001b[31mrevoked."}}`, "The backend refuses this host's key: Key [31mrevoked."},
		{"key refused at length", 401, "", "", `{"trace":["x"],"error":{"message":"Key revoked.","status":401,"code":"unauthorized","help":"` + strings.Repeat("h", 2000) + `"}}`, "The backend refuses this host's key: Key revoked."},
		{"key refused at great length", 401, "", "", `{"error":{"code":"unauthorized","message":"` + strings.Repeat("h", 2000) + `"}}`, "The backend refuses this host's key; sign in again."},
		{"key expired", 401, "", "", `{"error":{"code":"key_expired"}}`, "The backend refuses this host's key; sign in again."},
		{"host suspended", 403, "", "", `{"error":{"code":"host_suspended","message":"Payout details are missing."}}`, "The marketplace has suspended this host: Payout details are missing."},
		{"clock wrong", 401, "", "", `{"error":{"code":"clock_skew"}}`, "The backend finds this machine's clock wrong; set it."},
		{"too old", 426, "", "", `{"error":{"code":"upgrade_required","message":"It takes version 2 or newer."}}`, "The backend no longer takes this version of the agent: It takes version 2 or newer."},
		{"portal that speaks JSON at length", 401, "", "", `{"code":"unauthorized","error":["` + strings.Repeat("h", 2000) + `"]}`, "captive portal"},
	} {
		t.Run(test.name, func(t *testing.T) {
			followed := false
			mux := http.NewServeMux()
			mux.Handle("/agent", answering(test.status, test.header, test.value, test.body))
			mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) { followed = true })
			o := serveTLS(t, mux)
			o.URL += "/agent"
			link := newLink(t, o).start()
			h := link.await(func(h protocol.LinkHealth) bool { return h.Problem != "" })
			if !strings.Contains(h.Problem, test.says) || followed {
				t.Errorf("says %q, want %q; followed: %v", h.Problem, test.says, followed)
			}
		})
	}
}

// TestCompressionRefused: a server that selects an extension nobody offered breaks the handshake.
func TestCompressionRefused(t *testing.T) {
	handler, accepted := peers(t)
	link := newLink(t, serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(extending{w.(http.Hijacker), w}, r)
	}))).start()
	h := link.await(func(h protocol.LinkHealth) bool { return h.Problem != "" })
	if !strings.Contains(h.Problem, "compression") {
		t.Errorf("says %q", h.Problem)
	}
	(<-accepted).Close()
}

// extending slips an extension into the answer that a WebSocket library writes.
type extending struct {
	http.Hijacker
	http.ResponseWriter
}

func (e extending) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := e.Hijacker.Hijack()
	return &inserting{conn}, buffer, err
}

type inserting struct{ net.Conn }

func (i *inserting) Write(p []byte) (int, error) {
	extension := []byte("\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n\r\n")
	if _, err := i.Conn.Write(bytes.Replace(p, []byte("\r\n\r\n"), extension, 1)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// TestUnreachable: what can go wrong below TLS becomes a sentence of its own.
func TestUnreachable(t *testing.T) {
	closed := listen(t)
	_ = closed.Close()
	silent := listen(t)
	go silent.serve(func(conn net.Conn) io.Reader { return conn })
	broken := listen(t)
	go broken.serve(func(conn net.Conn) io.Reader { _ = conn.Close(); return strings.NewReader("") })
	failing := func(err error) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
		}
	}
	hanging := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded}
	}
	for _, test := range []struct {
		name    string
		url     string
		connect func(context.Context, string, string) (net.Conn, error)
		says    string
	}{
		{"refused", "wss://" + closed.Addr().String(), nil, closed.Addr().String() + " refuses connections"},
		{"silent after connecting", "wss://" + silent.Addr().String(), nil, "did not answer in time while securing"},
		{"cut while securing", "wss://" + broken.Addr().String(), nil, "broke the connection off while securing"},
		{"no such name", "wss://backend.test", failing(&net.DNSError{Name: "backend.test", IsNotFound: true}), "The name backend.test cannot be found"},
		{"no DNS", "wss://backend.test", failing(&net.DNSError{Name: "backend.test", IsTimeout: true}), "DNS does not answer"},
		{"silent", "wss://backend.test", hanging, "backend.test:443 did not answer in time while connecting"},
		{"odd", "wss://backend.test", failing(errors.New("odd")), "backend.test:443 failed while connecting"},
	} {
		t.Run(test.name, func(t *testing.T) {
			link := newLink(t, options(test.url, nil))
			link.dialer.times.connect, link.dialer.times.tls = 50*time.Millisecond, 50*time.Millisecond
			if test.connect != nil {
				link.dialer.connect = test.connect
			}
			link.start()
			h := link.await(func(h protocol.LinkHealth) bool { return h.Problem != "" })
			if !strings.Contains(h.Problem, test.says) {
				t.Errorf("says %q, want %q", h.Problem, test.says)
			}
			if pause := time.Until(h.NextTry); pause > 10*time.Second {
				t.Errorf("tries again in %v: no TLS error, no long pause", pause)
			}
		})
	}
}

// TestUpgradeBounded: a server that proves who it is and then says nothing is given up.
func TestUpgradeBounded(t *testing.T) {
	release := make(chan struct{})
	o := serveTLS(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer close(release)
	link := newLink(t, o)
	link.dialer.times.upgrade = 50 * time.Millisecond
	link.start()
	h := link.await(func(h protocol.LinkHealth) bool { return h.Problem != "" })
	if !strings.Contains(h.Problem, "did not answer in time while upgrading") {
		t.Errorf("says %q", h.Problem)
	}
}

// TestPlaintext: ws:// reaches this machine, or nothing.
func TestPlaintext(t *testing.T) {
	for _, raw := range []string{"ws://127.0.0.1:80", "ws://[::1]:80", "ws://localhost:80/agent"} {
		o := options(raw, nil)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), "wss://") {
			t.Errorf("%s without being asked for: %v", raw, err)
		}
		o.AllowPlaintextLoopback = true
		if _, err := New(o); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
	outside := loopbackOnly(func(context.Context, string, string) (net.Conn, error) {
		near, _ := net.Pipe()
		return elsewhere{near}, nil
	})
	if _, err := outside(t.Context(), "tcp", "localhost:80"); err == nil {
		t.Error("localhost that resolves to another machine was taken")
	}
}

// TestPlaintextStaysHome: an address of this machine that others reach too is no loopback address.
func TestPlaintextStaysHome(t *testing.T) {
	everywhere, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer everywhere.Close()
	o := options("ws://localhost:80", nil)
	o.AllowPlaintextLoopback = true
	link, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(everywhere.Addr().String())
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		network, ok := address.(*net.IPNet)
		if !ok || network.IP.To4() == nil {
			continue
		}
		conn, err := link.dialer.connect(t.Context(), "tcp", net.JoinHostPort(network.IP.String(), port))
		if (err == nil) != network.IP.IsLoopback() {
			t.Errorf("%s: %v", network.IP, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}

type elsewhere struct{ net.Conn }

func (elsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80} }

func TestBadOptions(t *testing.T) {
	good := options("wss://backend.example.com/agent", nil)
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	notPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(notPEM, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"empty":               func(o *Options) { o.URL = "" },
		"http":                func(o *Options) { o.URL = "http://backend.example.com" },
		"https":               func(o *Options) { o.URL = "https://backend.example.com" },
		"no host":             func(o *Options) { o.URL = "wss:///agent" },
		"a key in the URL":    func(o *Options) { o.URL = "wss://key:" + testKey + "@backend.example.com" },
		"a fragment":          func(o *Options) { o.URL = "wss://backend.example.com/#x" },
		"control characters":  func(o *Options) { o.URL = "wss://a\x7fb" + testKey },
		"ws elsewhere":        func(o *Options) { o.URL, o.AllowPlaintextLoopback = "ws://192.0.2.1", true },
		"ws to a name":        func(o *Options) { o.URL, o.AllowPlaintextLoopback = "ws://localhost.example.com", true },
		"no key":              func(o *Options) { o.Key = nil },
		"CA file is missing":  func(o *Options) { o.CAFile = notPEM + ".gone" },
		"CA file is no PEM":   func(o *Options) { o.CAFile = notPEM },
		"CA bytes are no PEM": func(o *Options) { o.CAPEM = []byte("nothing") },
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			change(&o)
			if _, err := New(o); err == nil || strings.Contains(err.Error(), testKey) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestKeyTrouble: why there is no key is said, and nothing is dialled.
func TestKeyTrouble(t *testing.T) {
	for _, test := range []struct {
		name   string
		err    error
		says   string
		signIn bool
	}{
		{"none", nil, "This host is not signed in.", true},
		{"unusable", errors.New("the key file is readable by others"), "There is no host key to sign on with: the key file is readable by others.", true},
		{"unreadable", fmt.Errorf("looking: %w", &KeyUnreadable{"The keyring is locked; unlock it"}), "The keyring is locked; unlock it.", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := listen(t)
			go server.serve(func(conn net.Conn) io.Reader { return conn })
			o := options("wss://"+server.Addr().String(), nil)
			o.Key = func(context.Context) (secret.String, error) { return secret.String{}, test.err }
			h := newLink(t, o).start().await(func(h protocol.LinkHealth) bool { return h.Problem != "" })
			if h.NeedsSignIn != test.signIn || h.Problem != test.says {
				t.Errorf("health is %+v", h)
			}
			server.mu.Lock()
			defer server.mu.Unlock()
			if server.calls != 0 {
				t.Error("the server was dialled")
			}
		})
	}
}
