// Package backend is a marketplace backend on loopback. It speaks the whole contract with host
// agents over real WSS: host keys, registration, heartbeats, orders and their answers, receipts for
// final states. It keeps everything it hears, with the time it came, and it can be brought into the
// troubles of a real one: cut lines, refused keys, outages, a version that knows less.
package backend

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/ca"
	"github.com/distributedcompute/host-agent/sandbox/identity"
)

// Path is where agents connect.
const Path = "/v1/agent"

// Options say how a backend behaves. The zero value of a field but CA has a usable meaning.
type Options struct {
	Addr string // host:port to listen on; "": a free port of 127.0.0.1
	CA   *ca.CA // signs the backend's certificate
	// Relay is what nodes are told about the tunnel relay; nil: nothing.
	Relay *protocol.Relay
	// PricePerHour is put into orders that name no price; "": nothing is put there.
	PricePerHour string
	// HeartbeatIntervalS is the pace nodes are asked for; 0: 5 s.
	HeartbeatIntervalS int
	// Identity vouches for the people who enrol hosts; nil: nobody signs in.
	Identity *identity.Provider
	// Owner is whose those hosts are that no person has enrolled; zero: somebody with identity.DefaultEmail.
	Owner Owner
	// KeyLifetime is how long a host key is good; 0: for good.
	KeyLifetime time.Duration
	// EarningsEvery is the pace at which nodes are told what they have earned while they earn; 0: 1 min.
	EarningsEvery time.Duration
	// SeedOnly makes a backend of the first days. It knows heartbeat, start_instance, stop_instance
	// and drain_node, sends no ids, and answers nothing.
	SeedOnly bool
	Log      *slog.Logger // nil: nothing is logged
}

// Backend runs until Close. Its methods may be called at any time, from anywhere.
type Backend struct {
	options Options
	cert    tls.Certificate
	address string // of the first listener; kept over Down and Up

	serving  sync.WaitGroup // listeners
	sessions sync.WaitGroup

	mu           sync.Mutex // guards all below
	server       *http.Server
	nodes        map[string]*node    // by id
	keys         map[string]*hostKey // by id
	enrolments   map[[sha256.Size]byte]*enrolment
	bans         map[string]string  // codes, by e-mail address
	rentals      map[string]*Rental // by id
	order        []string           // rental ids, oldest first
	events       []Event            // the newest
	forgotten    int                // events that came before those
	grown        chan struct{}      // closed and replaced when events grows
	intercept    http.Handler
	holdReceipts bool
	ports        map[uint16]bool // public ports given out
}

// Start listens and returns. ctx bounds the start alone.
func Start(ctx context.Context, options Options) (*Backend, error) {
	if options.CA == nil {
		return nil, errors.New("starting backend: Options.CA is missing")
	}
	if options.Addr == "" {
		options.Addr = "127.0.0.1:0"
	}
	if options.HeartbeatIntervalS == 0 {
		options.HeartbeatIntervalS = 5
	}
	if options.Owner == (Owner{}) {
		options.Owner = Owner{ID: "user_sandbox", Email: identity.DefaultEmail}
	}
	if options.EarningsEvery == 0 {
		options.EarningsEvery = time.Minute
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	cert, err := options.CA.Issue(time.Now().AddDate(1, 0, 0), "127.0.0.1", "localhost", "::1")
	if err != nil {
		return nil, err
	}
	b := &Backend{
		options:    options,
		cert:       cert,
		address:    options.Addr,
		nodes:      map[string]*node{},
		keys:       map[string]*hostKey{},
		enrolments: map[[sha256.Size]byte]*enrolment{},
		bans:       map[string]string{},
		rentals:    map[string]*Rental{},
		grown:      make(chan struct{}),
		ports:      map[uint16]bool{},
	}
	if err := b.Up(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// Close ends every connection and the backend.
func (b *Backend) Close() error {
	b.Down()
	return nil
}

// URL is what agents are configured with.
func (b *Backend) URL() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return "wss://" + b.address + Path
}

// Dashboard is the address of the page that shows an owner his hosts.
func (b *Backend) Dashboard() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return "https://" + b.address + dashboardPath
}

// Up listens again after Down, on the same port and knowing all it knew. On a backend that is up it does nothing.
func (b *Backend) Up(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		return nil
	}
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", b.address)
	if err != nil {
		return fmt.Errorf("listening for agents: %w", err)
	}
	b.address = listener.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc(Path, b.accept)
	b.serveHosts(mux)
	mux.HandleFunc("GET "+dashboardPath, b.dashboard)
	server := &http.Server{
		Handler:           b.intercepted(mux),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(b.options.Log.Handler(), slog.LevelDebug),
	}
	b.server = server
	secured := tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{b.cert}, MinVersion: tls.VersionTLS12})
	b.serving.Go(func() { _ = server.Serve(secured) })
	return nil
}

// Down stops listening and breaks every connection, as a crash would. Nothing is forgotten.
func (b *Backend) Down() {
	b.mu.Lock()
	server := b.server
	b.server = nil
	b.mu.Unlock()
	if server != nil {
		_ = server.Close()
	}
	b.Cut(0)
	b.serving.Wait()
	b.sessions.Wait()
}
