package backend

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/secret"
)

// Options say which backend, and who is asking.
type Options struct {
	// URL is the backend's address, wss://host[:port]/path.
	URL string
	// Key is asked for the host key before each connection, so a new one needs no restart. An empty key
	// says that there is none, [KeyUnreadable] that there may be one which cannot be read at present.
	Key func(context.Context) (secret.String, error)
	// Judged is told what the backend makes of the key: "" when it opens a connection, else the code with
	// which it refuses it, such as key_expired. It must return quickly; nil: nobody wants to know.
	Judged func(code string)
	// CAFile and CAPEM are the authorities that may sign the backend's certificate; with neither,
	// those of the system.
	CAFile string
	CAPEM  []byte
	// Version of the agent, for the User-Agent header.
	Version string
	// AllowPlaintextLoopback accepts ws:// to a loopback address, for development.
	AllowPlaintextLoopback bool
	// Heartbeat is the pace until SetInterval; 0: 5 s.
	Heartbeat time.Duration
	Log       *slog.Logger
}

// KeyUnreadable is the error of a key that cannot be read at present, such as one in a locked keyring. It
// is asked for again before long, and nobody has to sign in for it.
type KeyUnreadable struct {
	Problem string // one sentence for a person
}

// Error implements error.
func (e *KeyUnreadable) Error() string { return e.Problem }

const defaultHeartbeat = 5 * time.Second

// maxWaiting bounds the commands that were read and not taken by the agent yet.
const maxWaiting = 64

// Link is the connection to one backend. Its methods may be called at any time, from any goroutine.
type Link struct {
	dialer   *dialer
	backoff  backoff
	times    timing
	log      *slog.Logger
	commands chan protocol.Incoming
	out      *outbox
	replies  replies
	pace     pace
	retry    chan struct{} // capacity 1: do not wait for the next try
	again    chan struct{} // capacity 1: register again on this connection
	slept    func(then, now time.Time) bool
	judged   func(code string)

	mu     sync.Mutex
	health protocol.LinkHealth
	hangUp context.CancelFunc // of the latest connection; nil before the first
}

// New checks the options. It connects to nothing and starts nothing.
func New(options Options) (*Link, error) {
	address, err := checkURL(options.URL, options.AllowPlaintextLoopback)
	if err != nil {
		return nil, err
	}
	pool, err := authorities(options)
	if err != nil {
		return nil, err
	}
	if options.Key == nil || options.Log == nil {
		return nil, errors.New("making the backend link: a key and a log are needed")
	}
	if options.Judged == nil {
		options.Judged = func(string) {}
	}
	times := contractTiming()
	keepAlive := net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}
	d := &dialer{
		url:       address,
		key:       options.Key,
		userAgent: fmt.Sprintf("distributed-agent/%s (%s; %s)", options.Version, runtime.GOOS, runtime.GOARCH),
		tls:       secureConfig(address.Hostname(), pool),
		proxy:     http.ProxyFromEnvironment,
		connect:   (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext,
		times:     times,
	}
	if address.Scheme == "ws" {
		d.proxy, d.connect = nil, loopbackOnly(d.connect)
	}
	l := &Link{
		dialer:   d,
		backoff:  newBackoff(),
		times:    times,
		log:      options.Log,
		commands: make(chan protocol.Incoming, maxWaiting),
		out:      newOutbox(times.keep),
		pace:     newPace(options.Heartbeat),
		retry:    make(chan struct{}, 1),
		again:    make(chan struct{}, 1),
		slept:    sleptBetween,
		judged:   options.Judged,
		health:   protocol.LinkHealth{URL: address.Redacted(), Since: time.Now()},
	}
	return l, nil
}

// checkURL takes wss:// anywhere, and ws:// to a loopback address where that was asked for.
func checkURL(raw string, plaintextLoopback bool) (*url.URL, error) {
	address, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("backend address: takes wss://host[:port]/path")
	}
	switch {
	case address.User != nil:
		return nil, errors.New("backend address: takes no user name or password; the host key goes elsewhere")
	case address.Hostname() == "" || address.Fragment != "":
		return nil, fmt.Errorf("backend address %.80q: takes wss://host[:port]/path", raw)
	case address.Scheme == "wss":
		return address, nil
	case address.Scheme == "ws" && plaintextLoopback && isLoopback(address.Hostname()):
		return address, nil
	case address.Scheme == "ws":
		return nil, fmt.Errorf("backend address %.80q: takes wss://; ws:// goes to a loopback address only, and only where that is allowed by name", raw)
	}
	return nil, fmt.Errorf("backend address %.80q: takes wss://host[:port]/path", raw)
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// authorities are those named by the options; nil stands for the system's.
func authorities(options Options) (*x509.CertPool, error) {
	pem := options.CAPEM
	if options.CAFile != "" {
		file, err := os.ReadFile(options.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading the backend's CA file: %w", err)
		}
		pem = append(append([]byte{}, pem...), file...)
	}
	if len(pem) == 0 && options.CAFile == "" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading the backend's CA file %s: it holds no certificate", options.CAFile)
	}
	return pool, nil
}

// Run keeps a session alive until ctx ends, and then sends what is queued, within a bound, and
// says goodbye. register and heartbeat are asked for what to say; changed is called after each
// change of Health and must return quickly. Run is called once; it closes Commands.
func (l *Link) Run(ctx context.Context, register func() protocol.Register, heartbeat func() protocol.Heartbeat, changed func()) error {
	defer close(l.commands)
	talk := talk{register, heartbeat, changed}
	reread, settle := 0, time.Duration(0)
	for {
		untick(l.retry) // a wish from before this try is met by it
		s := l.attend(ctx, talk)
		if ctx.Err() != nil {
			l.noteGone(changed)
			return nil
		}
		if s.kind == refused {
			l.judged(s.code)
			// Whoever else exchanges this host's key voids the one in hand. The new one is tried once: a
			// place that gives another key each time must not make this a tight loop. Once more where an
			// open connection was closed: its key may be older than one that was exchanged, and void too.
			settle = max(settle, s.settle)
			if (reread == 0 || reread == 1 && settle > 0) && l.dialer.changedKey(ctx, settle) {
				reread++
				l.noteGone(changed)
				continue
			}
		}
		reread, settle = 0, 0
		l.wait(ctx, s, changed)
	}
}

// talk is what the agent has to say, and who wants to know of changes.
type talk struct {
	register  func() protocol.Register
	heartbeat func() protocol.Heartbeat
	changed   func()
}

// attend makes one connection and stays with it until it ends.
func (l *Link) attend(ctx context.Context, talk talk) *setback {
	conn, err := l.dialer.dial(ctx)
	if err != nil {
		return explainLoss(err)
	}
	l.log.Info("connected to the backend")
	l.judged("")
	number := l.replies.reset()
	l.out.reconnected(number)
	l.note(talk.changed, func(h *protocol.LinkHealth) {
		*h = protocol.LinkHealth{URL: h.URL, Connected: true, Since: time.Now()}
	})
	s := newSession(l, number, conn, talk)
	staying, hangUp := context.WithCancel(ctx)
	defer hangUp()
	l.mu.Lock()
	l.hangUp = hangUp
	l.mu.Unlock()
	lost := explainLoss(s.run(staying))
	if s.proven() {
		l.backoff.reset()
	}
	return lost
}

// wait shows the setback and lets its time go by, unless Retry cuts it short, or the machine sleeps and
// wakes up: its timers stand still meanwhile.
func (l *Link) wait(ctx context.Context, s *setback, changed func()) {
	pause := l.backoff.next(s)
	last := time.Now()
	next := last.Add(pause)
	level := slog.LevelWarn
	if s.kind == keyless && s.problem == l.Health().Problem {
		level = slog.LevelDebug // a host that nobody signs in says so once
	}
	l.log.Log(ctx, level, "no connection to the backend", "problem", s.problem, "cause", s.cause, "next_try", pause.Round(time.Millisecond))
	l.note(changed, func(h *protocol.LinkHealth) {
		since := h.Since
		if h.Connected {
			since = time.Now()
		}
		*h = protocol.LinkHealth{
			URL: h.URL, NeedsSignIn: s.kind == refused || s.kind == keyless, Replaced: s.kind == replaced, Refused: s.code, Problem: s.problem,
			Since: since, NextTry: next,
		}
	})
	timer := time.NewTimer(pause)
	defer timer.Stop()
	look := time.NewTicker(l.times.look)
	defer look.Stop()
	retry := l.retry
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-retry:
			timer.Reset(l.backoff.uniform(localWindow))
			retry = nil // a further wish would put the try off
			look.Stop()
		case now := <-look.C:
			if l.slept(last, now) {
				timer.Reset(l.backoff.afterSleep(s, wall(now, next)))
			}
			last = now
		}
	}
}

// Retry ends the pause before the next try, within a second. It is for causes on this machine that
// are over, such as a new sign-in; it forgives nothing.
func (l *Link) Retry() { tick(l.retry) }

// HangUp ends the present connection, once it has sent what is queued: its key is given up.
func (l *Link) HangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hangUp != nil {
		l.hangUp()
	}
}

// Commands are the checked messages of the backend, in order. It is closed after Run.
func (l *Link) Commands() <-chan protocol.Incoming { return l.commands }

// Answer queues the one answer to a command that wants one. A second one is dropped, and so is one to
// a command of an earlier connection: its id may be another command's by now.
func (l *Link) Answer(to protocol.Incoming, result protocol.CommandResult) {
	id := to.ID
	if id == "" {
		return
	}
	frame, err := protocol.Encode(id, result)
	if err != nil {
		l.log.Error("an answer cannot be sent", "id", id, "error", err)
		message := "The answer cannot be sent."
		if errors.Is(err, protocol.ErrTooLarge) {
			message = "The answer is too large to be sent; ask for less."
		}
		frame, _ = protocol.Encode(id, protocol.CommandResult{Error: &protocol.Error{Code: protocol.Internal, Message: message}})
	}
	if !l.replies.settle(to.Connection, id, frame) {
		return
	}
	if dropped := l.out.answer(to.Connection, frame); dropped > 0 {
		l.log.Warn("answers were dropped, because too many wait for a connection", "dropped", dropped)
	}
}

// PostInstance queues a status of a rental: its states in order, of its progress only the latest.
// A final status is sent again after each reconnect until the backend has confirmed it.
func (l *Link) PostInstance(status protocol.InstanceStatus) { l.out.postInstance(status) }

// PostNode queues the node's status; only the latest is sent, and none that a later register says. What
// register is asked for must be up to date before.
func (l *Link) PostNode(status protocol.NodeStatus) { l.out.postNode(status) }

// Reregister asks for another register and sends it on the running connection. Without one there is
// nothing to do: the next connection starts with a new register anyway.
func (l *Link) Reregister() { tick(l.again) }

// SetInterval changes the heartbeat's pace, within 1 to 60 s.
func (l *Link) SetInterval(interval time.Duration) { l.pace.set(interval) }

// Health is the state of the connection.
func (l *Link) Health() protocol.LinkHealth {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.health
}

func (l *Link) noteGone(changed func()) {
	l.note(changed, func(h *protocol.LinkHealth) { h.Connected, h.Registered = false, false })
}

// note changes Health and tells changed, if it did change.
func (l *Link) note(changed func(), change func(*protocol.LinkHealth)) {
	l.mu.Lock()
	before := l.health
	change(&l.health)
	same := before == l.health
	l.mu.Unlock()
	if !same {
		changed()
	}
}
