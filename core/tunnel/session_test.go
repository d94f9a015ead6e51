package tunnel_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/tunnel"
	"github.com/distributedcompute/host-agent/sandbox/relay"
)

func TestRoutesComeBackAfterRelayRestart(t *testing.T) {
	h := run(t, tunnel.Options{})
	r := startRelay(t, relay.Options{})
	h.Use(termsOf(r))
	told := listen()
	addresses := publish(t, h, "one", told, tcpRoute(22, freePort(t), greeter(t, "one")))

	r.Kill()
	told.await(t, "cannot be reached: connection refused")
	if info := h.Info(); info.Connected || info.Problem == "" || info.Routes != 0 {
		t.Errorf("info %+v, want a problem", info)
	}
	if err := r.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	told.await(t, "")
	t.Logf("published %v after the relay was back", time.Since(back))
	if waited := time.Since(back); waited > 3*time.Second {
		t.Errorf("published %v after the relay was back, want at most 3 s", waited)
	}
	wantGreeting(t, addresses[0], "one")
	if info := h.Info(); !info.Connected || info.Problem != "" || info.Routes != 1 {
		t.Errorf("info %+v, want one route and no problem", info)
	}
}

// Connections that nobody reads, neither in the container nor outside, notice nothing by themselves.
func TestRelayRestartsWhileConnectionsStall(t *testing.T) {
	h := run(t, tunnel.Options{})
	r := startRelay(t, relay.Options{})
	h.Use(termsOf(r))
	flood, halted := gusher(t)
	one := publish(t, h, "one", listen(), tcpRoute(22, freePort(t), deaf(t)), tcpRoute(23, freePort(t), flood))
	told := listen()
	two := publish(t, h, "two", told, tcpRoute(22, freePort(t), greeter(t, "two")))
	up, down := dialPublic(t, one[0]), dialPublic(t, one[1])
	io.WriteString(down, "!")
	stall(t, up)
	<-halted

	r.Kill()
	told.await(t, "relay")
	if err := r.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	told.await(t, "")
	wantGreeting(t, two[0], "two")

	left := make(chan struct{})
	go func() { h.leave(); close(left) }()
	select {
	case <-left:
	case <-time.After(patience):
		t.Error("a connection that outlived its session keeps Run from returning")
	}
}

func TestRoutesMoveWithTheTerms(t *testing.T) {
	h := run(t, tunnel.Options{})
	before, after := startRelay(t, relay.Options{}), startRelay(t, relay.Options{})
	h.Use(termsOf(before))
	told := listen()
	port := freePort(t)
	addresses := publish(t, h, "one", told, tcpRoute(22, port, greeter(t, "one")))
	since := h.Info().Since

	h.Use(termsOf(before)) // the same: nothing happens
	wantGreeting(t, addresses[0], "one")
	if got := h.Info().Since; !got.Equal(since) {
		t.Error("the same terms made a new connection")
	}

	terms := termsOf(after)
	terms.PublicHost = "localhost"
	h.Use(terms)
	h.await(t, "the new relay", func(i rental.RelayInfo) bool { return i.Address == after.Addr() && i.Routes == 1 })
	before.Kill()
	wantGreeting(t, addresses[0], "one")

	addresses = publish(t, h, "one", told, tcpRoute(22, port, greeter(t, "again")))
	if want := fmt.Sprintf("localhost:%d", port); addresses[0].Public != want {
		t.Errorf("published again at %s, want %s", addresses[0].Public, want)
	}
	wantGreeting(t, addresses[0], "again")
}

func TestPublishWaitsForRelay(t *testing.T) {
	h := run(t, tunnel.Options{})
	r := startRelay(t, relay.Options{})
	r.Kill()
	h.Use(termsOf(r))
	told := listen()
	published := make(chan []rental.Address)
	var publishing sync.WaitGroup
	defer publishing.Wait()
	publishing.Go(func() { published <- publish(t, h, "one", told, tcpRoute(22, freePort(t), greeter(t, "one"))) })
	told.await(t, "cannot be reached")
	if err := r.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantGreeting(t, (<-published)[0], "one")
}

// A host that lost its network without a word, or its power, leaves a session that hangs half-open.
func TestNextSessionTakesOver(t *testing.T) {
	r := startRelay(t, relay.Options{})
	gate := newGate(t, r.Addr())
	dir, port := filepath.Join(t.TempDir(), "state"), freePort(t)
	first := run(t, tunnel.Options{Dir: dir})
	terms := termsOf(r)
	terms.Address = gate.addr
	first.Use(terms)
	publish(t, first, "one", listen(), tcpRoute(22, port, greeter(t, "first")))
	gate.freeze()

	next := run(t, tunnel.Options{Dir: dir})
	next.Use(termsOf(r))
	began := time.Now()
	addresses := publish(t, next, "one", listen(), tcpRoute(22, port, greeter(t, "next")))
	if took := time.Since(began); took > time.Second {
		t.Errorf("taking over took %v, want it at once", took)
	}
	wantGreeting(t, addresses[0], "next")
}

// Without a kept id the host has to wait until the relay has noticed by itself.
func TestLeftOverSessionIsWaitedOut(t *testing.T) {
	r := startRelay(t, relay.Options{})
	port := freePort(t)
	first := run(t, tunnel.Options{})
	first.Use(termsOf(r))
	publish(t, first, "one", listen(), tcpRoute(22, port, greeter(t, "first")))

	next := run(t, tunnel.Options{})
	next.Use(termsOf(r))
	told := listen()
	var publishing sync.WaitGroup
	publishing.Go(func() {
		addresses := publish(t, next, "one", told, tcpRoute(22, port, greeter(t, "next")))
		wantGreeting(t, addresses[0], "next")
	})
	told.await(t, "still holds public port")
	first.leave()
	told.await(t, "")
	publishing.Wait()
}

// No packet tells that the relay is gone: only silence does.
func TestSilentRelayIsNoticed(t *testing.T) {
	if testing.Short() {
		t.Skip("silence takes up to 40 s to be noticed")
	}
	t.Parallel()
	r := startRelay(t, relay.Options{})
	gate := newGate(t, r.Addr())
	h := run(t, tunnel.Options{})
	terms := termsOf(r)
	terms.Address = gate.addr
	h.Use(terms)
	h.awaitConnected(t)
	told := listen()
	publish(t, h, "one", told, tcpRoute(22, freePort(t), greeter(t, "one")))
	gate.freeze()
	told.await(t, "was lost")
	gate.thaw()
	told.await(t, "")
	if routes := h.Info().Routes; routes != 1 {
		t.Errorf("%d routes are open, want 1", routes)
	}
}

func TestSessionIDIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	h := run(t, tunnel.Options{Dir: dir})
	h.Use(termsOf(startRelay(t, relay.Options{})))
	h.awaitConnected(t)
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "relay-session"): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != want {
			t.Errorf("%s has mode %o, want %o", path, mode, want)
		}
	}
}
