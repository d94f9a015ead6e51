package rental_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/rental/rentaltest"
)

const image = "registry.example.com/workload:1"

// host is a machine on which one agent after the other keeps the book.
type host struct {
	t      *testing.T
	dir    string
	engine *rentaltest.Engine
	relay  *rentaltest.Relay
	opts   rental.Options
	book   *rental.Book
	cancel context.CancelFunc
	done   chan error

	cutPower func() error // of a disk with faults

	mu   sync.Mutex
	told []rental.Status
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir(), engine: rentaltest.NewEngine(image)}
	h.boot()
	return h
}

// boot starts an agent: a new process, so with a new relay connection.
func (h *host) boot() {
	h.t.Helper()
	h.relay = rentaltest.NewRelay()
	h.open()
	h.run()
}

func (h *host) open() {
	h.t.Helper()
	opts := h.opts
	opts.Dir, opts.Engine, opts.Relay, opts.Log = h.dir, h.engine, h.relay, quiet(h.t)
	book, err := rental.Open(opts)
	if err != nil {
		h.t.Fatal(err)
	}
	h.book = book
}

func (h *host) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	h.cancel, h.done = cancel, done
	book := h.book
	go func() { done <- book.Run(ctx, h.note) }()
	h.t.Cleanup(cancel)
	synctest.Wait()
}

// leave ends the agent in good order.
func (h *host) leave() {
	h.t.Helper()
	h.cancel()
	if err := <-h.done; err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) note(s rental.Status) {
	h.book.Statuses() // must not be locked out
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, s)
}

func (h *host) accept(spec rental.Spec) rental.Status {
	h.t.Helper()
	s, err := h.book.Accept(spec)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *host) end(id rental.ID, why *rental.Failure, grace time.Duration) {
	h.t.Helper()
	if err := h.book.End(id, why, grace); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) status(id rental.ID) rental.Status {
	h.t.Helper()
	synctest.Wait()
	s, ok := h.book.Lookup(id)
	if !ok {
		h.t.Fatalf("rental %s is not known", id)
	}
	return s
}

// expect checks the state a rental has come to, and the code it failed with if it did.
func (h *host) expect(id rental.ID, state rental.State, code rental.Code) rental.Status {
	h.t.Helper()
	s := h.status(id)
	var got rental.Code
	if s.Failure != nil {
		got = s.Failure.Code
	}
	if s.State != state || got != code {
		h.t.Fatalf("rental %s is %s with failure %v and trouble %q; want %s, %q", id, s.State, s.Failure, s.Trouble, state, code)
	}
	return s
}

// states are those told of a rental, repetitions left out. It checks that statuses came in order.
func (h *host) states(id rental.ID) []rental.State {
	h.t.Helper()
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	var states []rental.State
	var last int64
	for _, s := range h.told {
		if s.ID != id {
			continue
		}
		if s.Sequence <= last {
			h.t.Errorf("rental %s: status %d (%s) was told after %d", id, s.Sequence, s.State, last)
		}
		last = s.Sequence
		states = append(states, s.State)
	}
	return slices.Compact(states)
}

func spec(id rental.ID) rental.Spec {
	return rental.Spec{
		ID: id, Image: image, Env: map[string]string{"TOKEN": "hunter2"},
		MemoryBytes: 16 << 30, CPUs: 2, PidsLimit: 512,
		Ports: []rental.Port{{Container: 22, Protocol: rental.TCP, Public: 10022}},
	}
}

func quiet(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// silent is for tests that provoke what is logged.
var silent = slog.New(slog.DiscardHandler)

// inBubble runs a test with a clock that moves when everything waits.
func inBubble(t *testing.T, test func(t *testing.T, h *host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		defer func() { h.cancel(); synctest.Wait() }()
		test(t, h)
	})
}

var wholeLife = []rental.State{
	rental.Accepted, rental.Pulling, rental.Creating, rental.Starting, rental.Tunnelling,
	rental.Running, rental.Stopping, rental.Stopped,
}

func TestLife(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		accepted := h.accept(spec("r-1"))
		if accepted.State != rental.Accepted || accepted.Sequence != 1 {
			t.Errorf("Accept answered %+v", accepted)
		}
		s := h.expect("r-1", rental.Running, "")
		want := []rental.Address{{Port: spec("r-1").Ports[0], Public: "relay.example.com:10022"}}
		if diff := cmp.Diff(want, s.Addresses); diff != "" {
			t.Error(diff)
		}
		if s.ContainerID == "" || s.ImageDigest == "" || s.StartedAt.IsZero() || s.Spec.Env != nil {
			t.Errorf("running status %+v", s)
		}
		h.end("r-1", nil, 30*time.Second)
		s = h.expect("r-1", rental.Stopped, "")
		if s.ExitCode == nil || *s.ExitCode != 143 || s.EndedAt.IsZero() || s.Addresses != nil {
			t.Errorf("final status %+v", s)
		}
		if diff := cmp.Diff(wholeLife, h.states("r-1")); diff != "" {
			t.Error(diff)
		}
		if s.Sequence != int64(len(wholeLife)) {
			t.Errorf("final sequence %d, want %d", s.Sequence, len(wholeLife))
		}
		if held, _ := h.engine.Holdings(t.Context()); held != nil || h.relay.Routes("r-1") != nil {
			t.Errorf("left behind: %v, %v", held, h.relay.Routes("r-1"))
		}
	})
}
