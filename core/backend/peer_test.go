package backend

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/sandbox/ca"
)

const testKey = "host-key-canary-4711"

// peer is the backend's end of one connection.
type peer struct {
	*websocket.Conn
	t       testing.TB
	request *http.Request
}

// next is the next frame of the agent; what is no contract frame fails the test.
func (p *peer) next() protocol.Incoming {
	p.t.Helper()
	_, frame, err := p.ReadMessage()
	if err != nil {
		p.t.Fatalf("reading from the agent: %v", err)
	}
	in, err := protocol.DecodeFromAgent(frame)
	if err != nil {
		p.t.Fatalf("the agent sent %s: %v", frame, err)
	}
	return in
}

// until reads on to the next message of a kind.
func until[M protocol.Message](p *peer) (M, string) {
	p.t.Helper()
	for {
		in := p.next()
		if message, ok := in.Data.(M); ok {
			return message, in.ID
		}
	}
}

func (p *peer) say(id string, message protocol.Message) {
	p.t.Helper()
	frame, err := protocol.Encode(id, message)
	if err != nil {
		p.t.Fatal(err)
	}
	p.raw(string(frame))
}

func (p *peer) raw(frame string) {
	p.t.Helper()
	if err := p.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
		p.t.Errorf("writing to the agent: %v", err)
	}
}

// greet answers register, as a whole backend does.
func (p *peer) greet() {
	p.t.Helper()
	_, id := until[*protocol.Register](p)
	p.say(id, protocol.Registered{NodeID: "node-1", HeartbeatIntervalS: 5})
}

// peers is a handler that hands out the connections made to it.
func peers(t testing.TB) (http.Handler, <-chan *peer) {
	accepted := make(chan *peer, 16)
	upgrader := websocket.Upgrader{Subprotocols: []string{protocol.Subprotocol}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		accepted <- &peer{conn, t, r}
	}), accepted
}

// serveTLS serves over real TLS on a loopback port, with a certificate of its own authority.
func serveTLS(t testing.TB, handler http.Handler) Options {
	t.Helper()
	authority, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Issue(time.Now().Add(time.Hour), "127.0.0.1", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	return options("wss"+strings.TrimPrefix(server.URL, "https"), authority.PEM())
}

func options(url string, caPEM []byte) Options {
	return Options{
		URL: url, CAPEM: caPEM, Version: "1.2.3", Log: slog.New(slog.DiscardHandler),
		Key: func(context.Context) (secret.String, error) { return secret.New(testKey), nil },
	}
}

// running is a link at work, and what it told of itself.
type running struct {
	*Link
	t       testing.TB
	leave   func()
	done    chan error
	changed chan struct{}
	log     *lockedBuffer
}

func newLink(t testing.TB, o Options) *running {
	t.Helper()
	log := &lockedBuffer{}
	o.Log = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return &running{Link: l, t: t, done: make(chan error, 1), changed: make(chan struct{}, 1), log: log}
}

// start runs the link until the test ends.
func (r *running) start() *running {
	ctx, cancel := context.WithCancel(r.t.Context())
	r.leave = cancel
	go func() {
		r.done <- r.Run(ctx, testRegister, testHeartbeat, func() { tick(r.changed) })
	}()
	r.t.Cleanup(func() {
		cancel()
		for range r.Commands() {
		}
		if strings.Contains(r.log.String(), testKey) {
			r.t.Errorf("the log holds the key:\n%s", r.log)
		}
	})
	return r
}

// await waits until the health is as wanted.
func (r *running) await(wanted func(protocol.LinkHealth) bool) protocol.LinkHealth {
	r.t.Helper()
	limit := time.After(time.Minute)
	for {
		if h := r.Health(); wanted(h) {
			return h
		}
		select {
		case <-r.changed:
		case <-limit:
			r.t.Fatalf("health is %+v", r.Health())
		}
	}
}

func testRegister() protocol.Register {
	return protocol.Register{Protocol: protocol.Version, Agent: protocol.Agent{Version: "1.2.3"}, Status: protocol.Online}
}

func testHeartbeat() protocol.Heartbeat { return protocol.Heartbeat{Status: protocol.Online} }

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// pipes is a listener without a network, so that a server and its clients can live in a synctest
// bubble, where time is the test's.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// piped is a link to a handler inside the bubble, not started yet.
func piped(t *testing.T, handler http.Handler) *running {
	listener := newPipes()
	server := &http.Server{Handler: handler}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	o := options("ws://127.0.0.1:1", nil)
	o.AllowPlaintextLoopback = true
	r := newLink(t, o)
	r.dialer.connect = listener.dial
	return r
}

func status(rental string, sequence int64, state string) protocol.InstanceStatus {
	return protocol.InstanceStatus{RentalID: rental, Sequence: sequence, State: state, At: time.Now().UTC()}
}

// object shows a value as JSON, for messages of tests.
func object(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
