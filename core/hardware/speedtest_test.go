package hardware

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// speedServer speaks Ookla's HTTP calls at a given rate, in both directions.
type speedServer struct {
	down, up   pace
	latency    []time.Duration // of one answer after the other, over and over
	pings      atomic.Int64
	sent, kept atomic.Int64 // bytes of bodies
}

// pace lets through so many bytes a second, over all connections; zero is no limit.
type pace struct {
	bytesPerSecond float64
	mu             sync.Mutex
	next           time.Time
}

func (p *pace) wait(bytes int) {
	if p.bytesPerSecond == 0 {
		return
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(float64(bytes) / p.bytesPerSecond * 1e9))
	pause := p.next.Sub(now)
	p.mu.Unlock()
	time.Sleep(pause)
}

func mbps(n float64) float64 { return n * 1e6 / 8 }

func (s *speedServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/speedtest/latency.txt":
		if s.latency != nil {
			time.Sleep(s.latency[int(s.pings.Add(1)-1)%len(s.latency)])
		}
		fmt.Fprintln(w, "test=test")
	case strings.HasPrefix(r.URL.Path, "/speedtest/random"):
		w.Header().Set("Content-Length", "1986284")
		s.send(w, 1986284)
	case r.URL.Path == "/speedtest/upload.php" && r.Method == http.MethodPost:
		n, _ := io.Copy(io.Discard, pacedReader{r.Body, &s.up, &s.kept})
		fmt.Fprintf(w, "size=%d", n)
	default:
		http.NotFound(w, r)
	}
}

func (s *speedServer) send(w io.Writer, bytes int) {
	chunk := make([]byte, 16<<10)
	for bytes > 0 {
		chunk = chunk[:min(len(chunk), bytes)]
		s.down.wait(len(chunk))
		n, err := w.Write(chunk)
		s.sent.Add(int64(n))
		if err != nil {
			return
		}
		bytes -= n
	}
}

type pacedReader struct {
	io.Reader
	pace  *pace
	count *atomic.Int64
}

func (r pacedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p[:min(len(p), 16<<10)])
	r.pace.wait(n)
	r.count.Add(int64(n))
	return n, err
}

// network connects by pipes instead of sockets, for a test in a bubble: time stands still while
// bytes move, so rates are exact.
type network struct {
	hosts map[string]*pipeListener
	mu    sync.Mutex
	asked map[string]bool // every address ever dialled
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// serve has handler answer at address until the test ends; with a certificate, over TLS.
func (n *network) serve(t *testing.T, address string, handler http.Handler, certificates ...tls.Certificate) {
	t.Helper()
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	if n.hosts == nil {
		n.hosts, n.asked = map[string]*pipeListener{}, map[string]bool{}
	}
	n.hosts[address] = l
	server := &http.Server{Handler: handler}
	var listener net.Listener = l
	if certificates != nil {
		listener = tls.NewListener(l, &tls.Config{Certificates: certificates})
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		<-ended
		time.Sleep(time.Minute) // in which every goroutine of server, client and library must end
	})
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	n.asked[address] = true
	n.mu.Unlock()
	host, ok := n.hosts[address]
	if !ok {
		return nil, errors.New("no such host")
	}
	ours, theirs := net.Pipe()
	select {
	case host.conns <- theirs:
		return ours, nil
	case <-host.closed: // a transport goes on dialling when the request that wanted it is over
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

const (
	speedURL     = "http://speed.test/speedtest/upload.php"
	speedAddress = "speed.test:80"
)

func newSpeedTest(t *testing.T, n *network, o SpeedTestOptions) *SpeedTest {
	t.Helper()
	s, err := NewSpeedTest(o)
	if err != nil {
		t.Fatal(err)
	}
	s.dial = n.dial
	return s
}

func near(got *float64, want, tolerance float64) bool {
	return got != nil && math.Abs(*got-want) <= tolerance*want
}

func TestSpeedTestMeasures(t *testing.T) {
	for _, test := range []struct {
		down, up        float64 // Mbit/s
		latency         []time.Duration
		latencyMS, jits float64
	}{
		{24, 8, []time.Duration{30 * time.Millisecond}, 30, 0},
		{2, 1, []time.Duration{100 * time.Millisecond, 140 * time.Millisecond}, 140, 40},
		{50, 50, []time.Duration{5 * time.Millisecond, 7 * time.Millisecond, 9 * time.Millisecond}, 7, 8.0 / 3},
	} {
		t.Run(fmt.Sprintf("%v down %v up", test.down, test.up), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &speedServer{latency: test.latency}
				server.down.bytesPerSecond, server.up.bytesPerSecond = mbps(test.down), mbps(test.up)
				var n network
				n.serve(t, speedAddress, server)
				start := time.Now()
				got, err := newSpeedTest(t, &n, SpeedTestOptions{Server: speedURL}).Measure(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if !near(got.DownloadMbps, test.down, 0.1) || !near(got.UploadMbps, test.up, 0.1) {
					t.Errorf("down %s up, want %v and %v", asJSON(t, got), test.down, test.up)
				}
				if !near(got.LatencyMS, test.latencyMS, 0.01) || math.Abs(*got.JitterMS-test.jits) > 0.5 {
					t.Errorf("%s, want %v ms and %v ms of jitter", asJSON(t, got), test.latencyMS, test.jits)
				}
				if got.Server != "speed.test" || !got.MeasuredAt.After(start.Add(-time.Second)) {
					t.Errorf("%s, want the server's host and the time", asJSON(t, got))
				}
				if took := time.Since(start); took > 35*time.Second {
					t.Errorf("took %v, want 2·15 s and the pings", took)
				}
			})
		})
	}
}

func TestSpeedTestKeepsItsBudget(t *testing.T) {
	endless := func(s *speedServer) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "random") {
				s.send(w, 1<<40)
				return
			}
			s.ServeHTTP(w, r)
		})
	}
	for _, test := range []struct {
		name  string
		wrap  func(*speedServer) http.Handler
		slack int64 // what buffers on the way hold
	}{
		{"honest server", func(s *speedServer) http.Handler { return s }, 0},
		{"server that never ends an answer", endless, 1 << 20},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &speedServer{}
				server.down.bytesPerSecond, server.up.bytesPerSecond = mbps(400), mbps(400)
				var n network
				n.serve(t, speedAddress, test.wrap(server))
				const budget = 40e6
				got, err := newSpeedTest(t, &n, SpeedTestOptions{Server: speedURL, MaxBytes: budget}).Measure(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if moved := server.sent.Load() + server.kept.Load(); moved > budget+test.slack || moved < budget/2 {
					t.Errorf("moved %d bytes, want no more than %d and most of it", moved, int(budget))
				}
				if !near(got.DownloadMbps, 400, 0.1) || !near(got.UploadMbps, 400, 0.1) {
					t.Errorf("%s, want 400 both ways in spite of so few bytes", asJSON(t, got))
				}
			})
		})
	}
}

func TestSpeedTestStopsAtOnce(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 5 * time.Second, 20 * time.Second} { // ping, down, up
		t.Run(after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &speedServer{latency: []time.Duration{10 * time.Millisecond}}
				server.down.bytesPerSecond, server.up.bytesPerSecond = mbps(8), mbps(8)
				var n network
				n.serve(t, speedAddress, server)
				why := errors.New("a rental starts")
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(after, func() { cancel(why) })
				start := time.Now()
				_, err := newSpeedTest(t, &n, SpeedTestOptions{Server: speedURL}).Measure(ctx)
				if !errors.Is(err, why) {
					t.Errorf("error %v, want the cause", err)
				}
				if late := time.Since(start) - after; late > betweenPings {
					t.Errorf("returned %v late", late)
				}
				synctest.Wait()
				before := server.sent.Load() + server.kept.Load()
				time.Sleep(time.Minute)
				if moved := server.sent.Load() + server.kept.Load() - before; moved > 64<<10 {
					t.Errorf("%d bytes moved afterwards", moved)
				}
			})
		})
	}
}

func TestSpeedTestAsksNobodyElse(t *testing.T) {
	elsewhere := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://other.test/speedtest/random1000x1000.jpg", http.StatusFound)
	}
	synctest.Test(t, func(t *testing.T) {
		server := &speedServer{}
		server.up.bytesPerSecond = mbps(8)
		var n network
		n.serve(t, "other.test:80", &speedServer{})
		n.serve(t, speedAddress, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && !strings.HasSuffix(r.URL.Path, "latency.txt") {
				elsewhere(w, r)
				return
			}
			server.ServeHTTP(w, r)
		}))
		got, err := newSpeedTest(t, &n, SpeedTestOptions{Server: speedURL}).Measure(t.Context())
		if err != nil || got.DownloadMbps != nil || !near(got.UploadMbps, 8, 0.1) {
			t.Errorf("%s, %v: want only the upload", asJSON(t, got), err)
		}
		if len(n.asked) != 1 || !n.asked[speedAddress] {
			t.Errorf("dialled %v, want %s alone", n.asked, speedAddress)
		}
	})
}

func TestSpeedTestTroubleIsOneSentence(t *testing.T) {
	for _, test := range []struct {
		name    string
		handler http.Handler // nil: nobody there
		want    string
	}{
		{"nobody there", nil, "measuring the network against speed.test: no such host"},
		{"no speed test server", http.NotFoundHandler(), `measuring the network against speed.test: it answers "404 Not Found" to /speedtest/latency.txt`},
		{"silence", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), "measuring the network against speed.test: it does not answer in time"},
		{"refuses both ways", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "latency.txt") {
				w.WriteHeader(http.StatusTooManyRequests)
			}
		}), `measuring the network against speed.test: it answers "429 Too Many Requests" to /speedtest/random1000x1000.jpg`},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n network
				n.serve(t, "other.test:80", http.NotFoundHandler())
				if test.handler != nil {
					n.serve(t, speedAddress, test.handler)
				}
				_, err := newSpeedTest(t, &n, SpeedTestOptions{Server: speedURL}).Measure(t.Context())
				if err == nil || err.Error() != test.want {
					t.Errorf("error %v\nwant  %s", err, test.want)
				}
			})
		})
	}
}

func TestNewSpeedTestRefuses(t *testing.T) {
	for _, test := range []struct {
		o    SpeedTestOptions
		want string
	}{
		{SpeedTestOptions{}, "is not an http or https URL"},
		{SpeedTestOptions{Server: "speed.example.com"}, "is not an http or https URL"},
		{SpeedTestOptions{Server: "www.speedtest.net"}, "is not an http or https URL"},
		{SpeedTestOptions{Server: "ftp://speed.example.com/x"}, "is not an http or https URL"},
		{SpeedTestOptions{Server: "http://:80/x"}, "names no host"},
		{SpeedTestOptions{Server: "http://speed.example.com/\x7f"}, "is not a URL"},
		{SpeedTestOptions{Server: "https://user:secret@speed.example.com/x"}, "holds a user"},
		{SpeedTestOptions{Server: "https://speed.example.com/x?y=z"}, "holds a user, a query"},
		{SpeedTestOptions{Server: "https://speed.example.com"}, "does not name what takes the upload"},
		{SpeedTestOptions{Server: "https://speed.example.com/speedtest/"}, "does not name what takes the upload"},
		{SpeedTestOptions{Server: speedURL, MaxBytes: 1e6}, "needs at least 16 MB"},
		{SpeedTestOptions{Server: speedURL, MaxBytes: -1}, "needs at least 16 MB"},
		{SpeedTestOptions{Server: speedURL, Duration: time.Millisecond}, "needs at least 1s"},
	} {
		_, err := NewSpeedTest(test.o)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: error %v, want one that says %q", test.o, err, test.want)
		}
	}
}

// speedtest.net by name: its list is asked, and the nearest of its servers measured.
func TestSpeedTestPublicServers(t *testing.T) {
	certificate, roots := certificateFor(t, "www.speedtest.net")
	synctest.Test(t, func(t *testing.T) {
		list := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/api/js/servers" {
				t.Errorf("speedtest.net is asked for %s", r.URL)
			}
			io.WriteString(w, `[{"url":"http://far.test:8080/speedtest/upload.php","id":"1","host":"far.test:8080","distance":1},
				{"url":"http://near.test:8080/speedtest/upload.php","id":"2","host":"near.test:8080","distance":2}]`)
		})
		far := &speedServer{latency: []time.Duration{80 * time.Millisecond}}
		closeBy := &speedServer{latency: []time.Duration{20 * time.Millisecond}}
		closeBy.down.bytesPerSecond, closeBy.up.bytesPerSecond = mbps(8), mbps(4)
		var n network
		n.serve(t, "www.speedtest.net:443", list, certificate)
		n.serve(t, "far.test:8080", far)
		n.serve(t, "near.test:8080", closeBy)
		s := newSpeedTest(t, &n, SpeedTestOptions{Server: "speedtest.net"})
		s.roots = roots
		got, err := s.Measure(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got.Server != "near.test:8080" || !near(got.DownloadMbps, 8, 0.1) || !near(got.UploadMbps, 4, 0.1) {
			t.Errorf("%s, want 8 down and 4 up of near.test:8080", asJSON(t, got))
		}
		if far.sent.Load()+far.kept.Load() > 0 {
			t.Error("the far server was measured too")
		}
	})
}

func certificateFor(t *testing.T, host string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// synctest's clock starts in 2000.
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

func TestOneSpeedTestAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n network
		n.serve(t, speedAddress, &speedServer{latency: []time.Duration{time.Second}})
		s := newSpeedTest(t, &n, SpeedTestOptions{Server: speedURL})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := s.Measure(ctx)
			ended <- err
		}()
		synctest.Wait()
		if _, err := s.Measure(ctx); err == nil || !strings.Contains(err.Error(), "running already") {
			t.Errorf("second: %v, want a refusal", err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("first: %v", err)
		}
	})
}

// Real sockets: rates are what the machine gives, bounds hold.
func TestSpeedTestOverLoopback(t *testing.T) {
	handler := &speedServer{}
	server := httptest.NewServer(handler)
	defer server.Close()
	const budget = 64e6
	s, err := NewSpeedTest(SpeedTestOptions{Server: server.URL + "/speedtest/upload.php", MaxBytes: budget, Duration: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(asJSON(t, got))
	for what, value := range map[string]*float64{"down": got.DownloadMbps, "up": got.UploadMbps, "latency": got.LatencyMS} {
		if value == nil || *value <= 0 {
			t.Errorf("%s was not measured", what)
		}
	}
	if moved := handler.sent.Load() + handler.kept.Load(); moved > budget {
		t.Errorf("moved %d bytes, want at most %d", moved, int(budget))
	}
}

// The library takes http.DefaultClient over when it is linked in; nothing of ours may send its name.
func TestDefaultClientIsLeftAlone(t *testing.T) {
	newClient(newLane(t.Context(), http.DefaultTransport, nil, time.Second, 0), time.Second)
	var agent bytes.Buffer
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { agent.WriteString(r.UserAgent()) }))
	defer server.Close()
	response, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if !strings.HasPrefix(agent.String(), "Go-http-client/") {
		t.Errorf("http.DefaultClient calls itself %q", agent.String())
	}
}
