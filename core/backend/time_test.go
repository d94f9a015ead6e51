package backend

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/secret"
)

// within fails the test unless so much time has gone by since start.
func within(t *testing.T, what string, start time.Time, least, most time.Duration) {
	t.Helper()
	if took := time.Since(start); took < least || took > most {
		t.Errorf("%s took %v, want %v to %v", what, took, least, most)
	}
}

// disconnected waits for the end of a connection.
func (r *running) disconnected() protocol.LinkHealth {
	r.t.Helper()
	for {
		if h := r.Health(); !h.Connected && h.Problem != "" {
			return h
		}
		<-r.changed
	}
}

// TestDeadPeers: whatever way a peer stops taking part, it is noticed within 30 s.
func TestDeadPeers(t *testing.T) {
	for name, die := range map[string]func(*peer){
		"reads nothing":                     func(*peer) {},
		"takes everything and says nothing": func(p *peer) { _, _ = io.Copy(io.Discard, p.NetConn()) },
		"a frame that never ends": func(p *peer) {
			go func() { _, _ = io.Copy(io.Discard, p.NetConn()) }()
			_, _ = p.NetConn().Write([]byte{0x81, 126, 0x10, 0}) // a text frame of 4096 bytes
			for {
				if _, err := p.NetConn().Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				handler, accepted := peers(t)
				link := piped(t, handler).start()
				peer := <-accepted
				peer.greet()
				<-link.Commands()
				start := time.Now()
				var dead sync.WaitGroup
				dead.Go(func() { die(peer) })
				h := link.disconnected()
				within(t, "noticing", start, time.Second, 30*time.Second)
				if h.Registered || h.NextTry.IsZero() {
					t.Errorf("health is %+v", h)
				}
				link.leave()
				peer.Close()
				dead.Wait()
			})
		})
	}
}

// TestSlowAgent: while the agent takes no commands for an hour, reading stops, both sides still
// see that the other is alive, and nothing is lost.
func TestSlowAgent(t *testing.T) {
	const commands = 500
	synctest.Test(t, func(t *testing.T) {
		handler, accepted := peers(t)
		link := piped(t, handler).start()
		peer := <-accepted
		heard, last, longest := 0, time.Now(), time.Duration(0)
		peer.SetPongHandler(func(string) error {
			heard++
			longest, last = max(longest, time.Since(last)), time.Now()
			return nil
		})
		var reading sync.WaitGroup
		reading.Go(func() { drain(peer) })
		go func() {
			for i := range commands {
				peer.say(fmt.Sprint("c-", i), protocol.RunSpeedtest{})
			}
		}()
		time.Sleep(time.Hour)
		for i := range commands {
			if in := <-link.Commands(); in.ID != fmt.Sprint("c-", i) {
				t.Fatalf("command %d is %s", i, object(in))
			}
		}
		time.Sleep(time.Minute)
		if h := link.Health(); !h.Connected || time.Since(h.Since) < time.Hour {
			t.Errorf("the connection was lost: %+v", h)
		}
		peer.Close()
		reading.Wait()
		if heard == 0 || longest > 30*time.Second {
			t.Errorf("the backend heard %d pongs, the longest pause was %v", heard, longest)
		}
	})
}

// TestSlowBackend: a peer that sends commands and takes no answers is held back, not answered into
// ever more memory; when it gives up reading for good the connection ends.
func TestSlowBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, accepted := peers(t)
		link := piped(t, handler).start()
		peer := <-accepted
		defer peer.Close()
		peer.greet()
		<-link.Commands()
		for i := range 5000 {
			_ = peer.SetWriteDeadline(time.Now().Add(5 * time.Second))
			if err := peer.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"event":"nonsense","id":"c-%d"}`, i)); err != nil {
				break
			}
		}
		link.out.mu.Lock()
		waiting := len(link.out.answers)
		link.out.mu.Unlock()
		if waiting > crowdedAnswers+1 {
			t.Errorf("%d answers are waiting", waiting)
		}
		link.disconnected()
	})
}

// TestPings: one every 20 s, give or take 10 %, and never in step.
func TestPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, accepted := peers(t)
		piped(t, handler).start()
		peer := <-accepted
		defer peer.Close()
		var gaps []time.Duration
		start, last := time.Now(), time.Now()
		answer := peer.PingHandler()
		peer.SetPingHandler(func(data string) error {
			gaps, last = append(gaps, time.Since(last)), time.Now()
			return answer(data)
		})
		for time.Since(start) < 30*time.Minute {
			peer.next()
		}
		if n := len(gaps); n < 80 || n > 100 {
			t.Errorf("%d pings in 30 min", n)
		}
		if low, high := slices.Min(gaps), slices.Max(gaps); low < 18*time.Second || high > 22*time.Second || low == high {
			t.Errorf("gaps from %v to %v", low, high)
		}
	})
}

// TestBackendPings: each ping of the backend is answered with its own data.
func TestBackendPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, accepted := peers(t)
		piped(t, handler).start()
		peer := <-accepted
		defer peer.Close()
		pong := ""
		peer.SetPongHandler(func(data string) error { pong = data; return nil })
		peer.greet()
		go func() {
			_ = peer.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(time.Second))
		}()
		until[*protocol.Heartbeat](peer)
		until[*protocol.Heartbeat](peer)
		if pong != "are you there" {
			t.Errorf("answered %q", pong)
		}
	})
}

// TestHeartbeatPace: the first at once, then every 5 s or as set, over a reconnect too.
func TestHeartbeatPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, accepted := peers(t)
		start := time.Now()
		link := piped(t, handler).start()
		peer := <-accepted
		until[*protocol.Heartbeat](peer)
		within(t, "the first heartbeat", start, 0, 0)
		for range 3 {
			start = time.Now()
			until[*protocol.Heartbeat](peer)
			within(t, "a heartbeat", start, 5*time.Second, 5*time.Second)
		}
		link.SetInterval(17 * time.Second)
		synctest.Wait()
		for range 3 {
			start = time.Now()
			until[*protocol.Heartbeat](peer)
			within(t, "a slower heartbeat", start, 17*time.Second, 17*time.Second)
		}
		peer.Close()
		peer = <-accepted
		defer peer.Close()
		until[*protocol.Heartbeat](peer)
		start = time.Now()
		until[*protocol.Heartbeat](peer)
		within(t, "a heartbeat after a reconnect", start, 17*time.Second, 17*time.Second)
	})
}

// switchable is a handler that can be replaced while it serves, and notes when it was called.
type switchable struct {
	handler atomic.Pointer[http.Handler]
	calls   chan time.Time
}

func switching(handler http.Handler) *switchable {
	s := &switchable{calls: make(chan time.Time, 10_000)}
	s.handler.Store(&handler)
	return s
}

func (s *switchable) use(handler http.Handler) { s.handler.Store(&handler) }

func (s *switchable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handler := *s.handler.Load() // before anyone can react to the call by using another one
	select {
	case s.calls <- time.Now():
	default: // nobody counts
	}
	handler.ServeHTTP(w, r)
}

func answering(status int, header, value, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if header != "" {
			w.Header().Set(header, value)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// greatest draws the longest wait each time, so that waits can be told exactly.
func greatest(limit time.Duration) time.Duration { return limit }

// TestReconnect walks through a long outage, a recovery that lasts and one that does not.
func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		working, accepted := peers(t)
		server := switching(answering(500, "", "", ""))
		link := piped(t, server)
		link.backoff.uniform = greatest
		link.start()
		last := <-server.calls
		within(t, "the first try", last, 0, 0)
		next := func(want time.Duration) {
			t.Helper()
			at := <-server.calls
			if wait := at.Sub(last); wait != want*time.Second {
				t.Errorf("tried again after %v, want %v s", wait, want)
			}
			last = at
		}
		for _, want := range []time.Duration{10, 21, 41, 81, 121, 121} {
			next(want)
		}
		lost := func(peer *peer, after time.Duration) {
			time.Sleep(after)
			peer.Close()
			last = time.Now()
		}
		server.use(working)
		next(121)
		peer := <-accepted
		peer.greet()
		go drain(peer)
		lost(peer, 59*time.Second) // too short to forgive
		next(121)
		peer = <-accepted
		peer.greet()
		go drain(peer)
		lost(peer, 61*time.Second) // healthy
		next(10)
		peer = <-accepted
		go drain(peer) // never answers register
		lost(peer, 2*time.Minute)
		next(21)
		peer = <-accepted
		go drain(peer)
		lost(peer, 11*time.Minute)
		next(10)
		peer = <-accepted
		peer.Close()
	})
}

// drain reads until the connection ends, and so answers pings.
func drain(p *peer) {
	for {
		if _, _, err := p.ReadMessage(); err != nil {
			return
		}
	}
}

// closing is a server that closes each connection with a code.
func closing(code int, reason string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(time.Second))
		for err == nil {
			_, _, err = conn.ReadMessage()
		}
	})
}

// TestServerWishes: what a server says about coming back is honoured, within bounds.
func TestServerWishes(t *testing.T) {
	refusal := `{"error":{"code":"unauthorized","message":"This key was revoked."}}`
	date := func(after time.Duration) string { return time.Now().Add(after).UTC().Format(http.TimeFormat) }
	for _, test := range []struct {
		name        string
		handler     func() http.Handler
		least, most time.Duration
		signIn      bool
	}{
		{"429 in seconds", func() http.Handler { return answering(429, "Retry-After", "90", "") }, 90 * time.Second, 100 * time.Second, false},
		{"503 at a date", func() http.Handler { return answering(503, "Retry-After", date(5*time.Minute), "") }, 299 * time.Second, 310 * time.Second, false},
		{"503 at a date gone by", func() http.Handler { return answering(503, "Retry-After", date(-time.Hour), "") }, 0, 10 * time.Second, false},
		{"503 in a year", func() http.Handler { return answering(503, "Retry-After", "31536000", "") }, time.Hour, time.Hour + 10*time.Second, false},
		{"503 in a nonsense", func() http.Handler { return answering(503, "Retry-After", "-5", "") }, 0, 10 * time.Second, false},
		{"503 without a wish", func() http.Handler { return answering(503, "", "", "") }, 0, 10 * time.Second, false},
		{"401 of the backend", func() http.Handler { return answering(401, "", "", refusal) }, 5 * time.Minute, 330 * time.Second, true},
		{"403 of the backend", func() http.Handler { return answering(403, "", "", refusal) }, 5 * time.Minute, 330 * time.Second, true},
		{"403, suspended", func() http.Handler { return answering(403, "", "", `{"error":{"code":"host_suspended"}}`) }, 5 * time.Minute, 330 * time.Second, false},
		{"401, clock wrong", func() http.Handler { return answering(401, "", "", `{"error":{"code":"clock_skew"}}`) }, time.Minute, 70 * time.Second, false},
		{"426 of the backend", func() http.Handler { return answering(426, "", "", `{"error":{"code":"upgrade_required"}}`) }, 5 * time.Minute, 330 * time.Second, false},
		{"426 of another", func() http.Handler { return answering(426, "", "", "") }, 0, 10 * time.Second, false},
		{"401 of a portal", func() http.Handler { return answering(401, "", "", "<html>Sign on to the Wi-Fi</html>") }, 0, 10 * time.Second, false},
		{"401 of other JSON", func() http.Handler { return answering(401, "", "", `{"error":"no"}`) }, 0, 10 * time.Second, false},
		{"close 4401", func() http.Handler { return closing(protocol.CloseSignedOut, "") }, 5 * time.Minute, 331 * time.Second, true},
		{"close 1012", func() http.Handler { return closing(1012, "") }, 5 * time.Second, 30 * time.Second, false},
		{"close 1013", func() http.Handler { return closing(1013, "") }, 30 * time.Second, time.Minute, false},
		{"close 1013 with a wish", func() http.Handler { return closing(1013, "busy retry_after=200 thanks") }, 200 * time.Second, 210 * time.Second, false},
		{"close 1008", func() http.Handler { return closing(1008, "") }, 0, 10 * time.Second, false},
		{"close 1000", func() http.Handler { return closing(1000, "bye") }, 0, 10 * time.Second, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := switching(test.handler())
				link := piped(t, server).start()
				first := <-server.calls
				h := link.disconnected()
				if h.NeedsSignIn != test.signIn {
					t.Errorf("needs sign-in: %v; %s", h.NeedsSignIn, h.Problem)
				}
				if second := <-server.calls; second.Sub(first) < test.least || second.Sub(first) > test.most {
					t.Errorf("tried again after %v, want %v to %v", second.Sub(first), test.least, test.most)
				}
				link.leave()
			})
		})
	}
}

// TestReplaced: an agent whose key another one uses says so, and lets the other one be for a while.
func TestReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := switching(closing(protocol.CloseReplaced, "replaced by another connection of this node"))
		link := piped(t, server).start()
		first := <-server.calls
		h := link.disconnected()
		if !h.Replaced || h.NeedsSignIn || h.Problem != "Another agent has signed on with this host's key; only one can serve a node." {
			t.Errorf("health: %+v", h)
		}
		if pause := (<-server.calls).Sub(first); pause < time.Minute {
			t.Errorf("tried again after %v", pause)
		}
		link.leave()
	})
}

// TestSignInAgain: a refused key is not tried for five minutes, unless there is word of a new one.
func TestSignInAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		working, accepted := peers(t)
		server := switching(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "Bearer new" {
				working.ServeHTTP(w, r)
				return
			}
			answering(401, "", "", `{"error":{"code":"unauthorized","message":"Unknown key."}}`).ServeHTTP(w, r)
		}))
		link := piped(t, server)
		key := atomic.Pointer[string]{}
		key.Store(new(""))
		link.dialer.key = func(context.Context) (secret.String, error) { return secret.New(*key.Load()), nil }
		link.start()
		if h := link.disconnected(); !h.NeedsSignIn || len(server.calls) != 0 {
			t.Errorf("without a key: %+v, %d tries", h, len(server.calls))
		}
		time.Sleep(time.Hour)
		if said := strings.Count(link.log.String(), `"level":"WARN"`); said != 1 {
			t.Errorf("said %d times that there is no key", said)
		}
		key.Store(new("old"))
		<-server.calls
		synctest.Wait()
		if h := link.Health(); !h.NeedsSignIn || h.Problem != "The backend refuses this host's key: Unknown key." {
			t.Errorf("health is %+v", h)
		}
		time.Sleep(time.Minute)
		key.Store(new("new"))
		start := time.Now()
		link.Retry()
		peer := <-accepted
		defer peer.Close()
		within(t, "retrying", start, 0, time.Second)
		peer.greet()
		if h := link.await(func(h protocol.LinkHealth) bool { return h.Registered }); h.NeedsSignIn || h.Problem != "" {
			t.Errorf("health is %+v", h)
		}
	})
}

// TestExchangedKey: a key that another process has exchanged is tried at once, a key that changes all
// the time is not, and whoever keeps the key hears of every verdict.
func TestExchangedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		working, accepted := peers(t)
		server := switching(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "Bearer good" {
				working.ServeHTTP(w, r)
				return
			}
			answering(401, "", "", `{"error":{"code":"key_expired"}}`).ServeHTTP(w, r)
		}))
		link := piped(t, server)
		verdicts := make(chan string, 100)
		link.judged = func(code string) { verdicts <- code }
		var key atomic.Pointer[string] // nil: another one each time
		var count atomic.Int64
		link.dialer.key = func(context.Context) (secret.String, error) {
			if key := key.Load(); key != nil {
				return secret.New(*key), nil
			}
			return secret.New(fmt.Sprint("key-", count.Add(1))), nil
		}
		link.start()
		first := <-server.calls
		if second := <-server.calls; second != first {
			t.Errorf("tried the other key after %v, want at once", second.Sub(first))
		}
		if third := <-server.calls; third.Sub(first) < 5*time.Minute {
			t.Errorf("tried a third key after %v", third.Sub(first))
		}
		synctest.Wait()
		key.Store(new("good"))
		link.Retry()
		peer := <-accepted
		peer.greet()
		link.await(func(h protocol.LinkHealth) bool { return h.Registered })
		var got []string
		for len(verdicts) > 0 {
			got = append(got, <-verdicts)
		}
		if last := len(got) - 1; last < 3 || got[last] != "" || slices.ContainsFunc(got[:last], func(code string) bool { return code != protocol.KeyExpired }) {
			t.Errorf("verdicts: %q", got)
		}

		// Signed out: the connection is closed, the key is gone a little later, and that needs no try.
		time.AfterFunc(300*time.Millisecond, func() { key.Store(new("")) })
		_ = peer.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(protocol.CloseSignedOut, "revoked"), time.Now().Add(time.Second))
		go drain(peer)
		tries := len(server.calls)
		h := link.await(func(h protocol.LinkHealth) bool { return !h.Connected && h.Problem != "" })
		if !h.NeedsSignIn || h.Problem != "This host is not signed in." || len(server.calls) != tries {
			t.Errorf("signed out: %+v, %d tries", h, len(server.calls)-tries)
		}
		if code := <-verdicts; code != protocol.Unauthorized {
			t.Errorf("verdict of the close: %q", code)
		}
		if strings.Contains(link.log.String(), "has ended this connection because") {
			t.Error("it was taken for a refused key in between")
		}
	})
}

// TestVoidedTwice: a connection outlives the exchange of its key; a sign-in then voids both, and its own
// key is here a little later.
func TestVoidedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		working, accepted := peers(t)
		void := make(map[string]bool)
		server := switching(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !void[r.Header.Get("Authorization")] {
				working.ServeHTTP(w, r)
				return
			}
			answering(401, "", "", `{"error":{"code":"key_revoked"}}`).ServeHTTP(w, r)
		}))
		link := piped(t, server)
		var key atomic.Pointer[string]
		key.Store(new("first"))
		link.dialer.key = func(context.Context) (secret.String, error) { return secret.New(*key.Load()), nil }
		link.start()
		peer := <-accepted
		peer.greet()
		link.await(func(h protocol.LinkHealth) bool { return h.Registered })
		key.Store(new("exchanged"))
		void["Bearer first"], void["Bearer exchanged"] = true, true
		time.AfterFunc(300*time.Millisecond, func() { key.Store(new("third")) })
		start := time.Now()
		_ = peer.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(protocol.CloseSignedOut, "revoked"), time.Now().Add(time.Second))
		go drain(peer)
		last := <-accepted
		last.greet()
		within(t, "coming back", start, 0, time.Second)
		if strings.Contains(link.log.String(), "no connection to the backend") {
			t.Error("it was taken for a host that is not signed in")
		}
	})
}

// TestHangUp: a key that is given up is not used to the end of its connection.
func TestHangUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, accepted := peers(t)
		link := piped(t, handler)
		var key atomic.Pointer[string]
		key.Store(new(testKey))
		link.dialer.key = func(context.Context) (secret.String, error) { return secret.New(*key.Load()), nil }
		link.HangUp() // nothing to do
		link.start()
		peer := <-accepted
		peer.greet()
		<-link.Commands()
		key.Store(new(""))
		start := time.Now()
		link.HangUp()
		link.Retry()
		for {
			if _, _, err := peer.ReadMessage(); err != nil {
				if !websocket.IsCloseError(err, websocket.CloseGoingAway) {
					t.Errorf("the peer saw %v", err)
				}
				break
			}
		}
		h := link.await(func(h protocol.LinkHealth) bool { return h.NeedsSignIn })
		if h.Connected || h.Problem != "This host is not signed in." {
			t.Errorf("health is %+v", h)
		}
		within(t, "hanging up", start, 0, 5*time.Second)
	})
}

// TestDayOffline: 200 events of a day without a connection arrive once, each rental's in order.
func TestDayOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		working, accepted := peers(t)
		server := switching(answering(502, "", "", ""))
		link := piped(t, server).start()
		states := []string{"accepted", "pulling", "creating", "starting", "tunnelling", "running", "starting", "running", "stopping", "stopped"}
		for sequence, state := range states {
			for rental := range 20 {
				time.Sleep(24 * time.Hour / 200)
				link.PostInstance(status(fmt.Sprintf("r-%d", rental), int64(sequence+1), state))
			}
		}
		server.use(working)
		peer := <-accepted
		defer peer.Close()
		got := map[string][]string{}
		for range 200 {
			s, _ := until[*protocol.InstanceStatus](peer)
			got[s.RentalID] = append(got[s.RentalID], s.State)
		}
		for rental, order := range got {
			if !slices.Equal(order, states) {
				t.Errorf("%s: %v", rental, order)
			}
		}
		peer.say("", protocol.StatusReceived{RentalID: "r-0", Sequence: 10})
		<-link.Commands()
		link.PostInstance(status("last", 1, "accepted"))
		if s, _ := until[*protocol.InstanceStatus](peer); s.RentalID != "last" {
			t.Errorf("sent twice: %s", object(s))
		}
	})
}

// TestUnconfirmed: a final status nobody confirms is sent again for seven days, then let go.
func TestUnconfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		working, accepted := peers(t)
		away := answering(503, "Retry-After", "1800", "")
		server := switching(working)
		link := piped(t, server).start()
		link.PostInstance(status("r-1", 5, "stopped"))
		for range 7 { // today, and at the end of each of six days
			peer := <-accepted
			if s, _ := until[*protocol.InstanceStatus](peer); s.Sequence != 5 {
				t.Fatalf("sent %s", object(s))
			}
			server.use(away)
			peer.Close()
			time.Sleep(23 * time.Hour)
			server.use(working)
		}
		server.use(away)
		time.Sleep(25 * time.Hour)
		server.use(working)
		peer := <-accepted
		defer peer.Close()
		link.PostInstance(status("r-2", 1, "accepted"))
		if s, _ := until[*protocol.InstanceStatus](peer); s.RentalID != "r-2" {
			t.Errorf("sent after seven days: %s", object(s))
		}
	})
}

// TestLeaveStuckPeer: a peer that takes nothing cannot keep the agent from leaving.
func TestLeaveStuckPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, accepted := peers(t)
		link := piped(t, handler).start()
		peer := <-accepted
		defer peer.Close()
		peer.greet()
		<-link.Commands()
		for i := range 1000 {
			link.PostInstance(status(fmt.Sprint("r-", i), 1, "stopped"))
		}
		synctest.Wait()
		start := time.Now()
		link.leave()
		if err := <-link.done; err != nil {
			t.Error(err)
		}
		within(t, "leaving", start, 0, 3*time.Second)
	})
}

// TestLeaveWhileConnecting: so does a peer that does not finish its handshake.
func TestLeaveWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		entered := make(chan struct{})
		link := piped(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(entered)
			<-release
		})).start()
		defer close(release)
		<-entered
		start := time.Now()
		link.leave()
		<-link.done
		within(t, "leaving", start, 0, time.Second)
	})
}

// TestSleptWhilePausing: a machine that wakes up in a long pause does not sit it out.
func TestSleptWhilePausing(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer http.Handler
		want   time.Duration
	}{
		{"in trouble", answering(502, "", "", ""), 6 * time.Second}, // it looks every 5 s
		{"key refused", answering(401, "", "", `{"error":{"code":"unauthorized"}}`), 331 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := switching(test.answer)
				link := piped(t, server)
				link.backoff.uniform = greatest
				link.backoff.tries = 9
				var sleeps atomic.Bool
				sleeps.Store(true)
				link.slept = func(_, _ time.Time) bool { return sleeps.Swap(false) }
				link.start()
				start := <-server.calls
				again := <-server.calls
				if wait := again.Sub(start); wait != test.want {
					t.Errorf("tried again after %v, want %v", wait, test.want)
				}
			})
		})
	}
}

func TestSlept(t *testing.T) {
	for _, test := range []struct {
		wall, awake time.Duration
		want        bool
	}{
		{5 * time.Second, 5 * time.Second, false},
		{8 * time.Hour, 5 * time.Second, true},
		{-time.Hour, 5 * time.Second, false}, // the clock was set back
		{10 * time.Minute, 10 * time.Minute, false},
		{6 * time.Second, 5 * time.Second, false},
	} {
		if got := slept(test.wall, test.awake); got != test.want {
			t.Errorf("slept(%v, %v) = %v", test.wall, test.awake, got)
		}
	}
}
