package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/secret"
	"github.com/distributedcompute/host-agent/core/tunnel"
	"github.com/distributedcompute/host-agent/sandbox/relay"
)

func TestTakenPortIsTriedUntilItIsFree(t *testing.T) {
	h := run(t, tunnel.Options{})
	h.Use(termsOf(startRelay(t, relay.Options{})))
	thief, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	port := thief.Addr().(*net.TCPAddr).AddrPort().Port()
	target := greeter(t, "mine")

	told := listen()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = h.Publish(ctx, "one", []rental.Route{tcpRoute(22, port, target)}, told.hear)
	wantFailure(t, err, rental.CodePortUnavailable, fmt.Sprintf("Public port %d is taken on the relay", port))

	var publishing sync.WaitGroup
	defer publishing.Wait()
	told = listen()
	publishing.Go(func() { publish(t, h, "one", told, tcpRoute(22, port, target)) })
	told.await(t, fmt.Sprintf("Public port %d is taken on the relay", port))
	thief.Close()
	freed := time.Now()
	told.await(t, "")
	publishing.Wait()
	if waited := time.Since(freed); waited > 5*time.Second {
		t.Errorf("the port was published %v after it was free, want at most 5 s", waited)
	}
	wantGreeting(t, rental.Address{Public: thief.Addr().String()}, "mine")
}

func TestObstacles(t *testing.T) {
	r := startRelay(t, relay.Options{AllowPorts: []relay.Ports{{First: 20000, Last: 29999}}})
	other := authority(t)
	plain := greeter(t, "this is no TLS")
	with := func(change func(*rental.Terms)) rental.Terms {
		terms := termsOf(r)
		change(&terms)
		return terms
	}
	for _, test := range []struct {
		name    string
		terms   rental.Terms
		problem string // of the connection, "" where there is one
		failure string
		code    rental.Code
	}{
		{
			name:    "wrong token",
			terms:   with(func(terms *rental.Terms) { terms.Token = secret.New("wrong") }),
			problem: "refuses the token of this host",
		},
		{
			name:    "foreign authority",
			terms:   with(func(terms *rental.Terms) { terms.CAPEM = other.PEM() }),
			problem: "no authority this host trusts has signed it",
		},
		{
			name:    "system authorities",
			terms:   with(func(terms *rental.Terms) { terms.CAPEM = nil }),
			problem: "no authority this host trusts has signed it",
		},
		{
			name:    "no authority at all",
			terms:   with(func(terms *rental.Terms) { terms.CAPEM = []byte("nothing") }),
			problem: "are not PEM certificates",
		},
		{
			name:    "another server's name",
			terms:   with(func(terms *rental.Terms) { terms.ServerName = "relay.example.com" }),
			problem: "it is not made out for relay.example.com",
		},
		{
			name:    "no server",
			terms:   with(func(terms *rental.Terms) { terms.Address = fmt.Sprintf("127.0.0.1:%d", freePort(t)) }),
			problem: "cannot be reached: connection refused",
		},
		{
			name:    "no TLS",
			terms:   with(func(terms *rental.Terms) { terms.Address = plain.String() }),
			problem: "does not speak TLS",
		},
		{
			name:    "port not allowed",
			terms:   termsOf(r),
			failure: "does not allow public port 30000",
			code:    rental.CodePortUnavailable,
		},
		{
			name:    "no relay",
			failure: "has not named a relay yet",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := run(t, tunnel.Options{})
			if test.terms.Address != "" {
				h.Use(test.terms)
			}
			if test.problem != "" {
				h.await(t, test.problem, func(i rental.RelayInfo) bool { return strings.Contains(i.Problem, test.problem) })
				test.failure = test.problem
			}
			if test.code == "" {
				test.code = rental.CodeTunnelFailed
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := h.Publish(ctx, "one", []rental.Route{tcpRoute(22, 30000, greeter(t, "one"))}, listen().hear)
			wantFailure(t, err, test.code, test.failure)
			if info := h.Info(); test.problem != "" && info.Connected {
				t.Errorf("info %+v, want no connection", info)
			}
		})
	}
}

func wantFailure(t *testing.T, err error, code rental.Code, words string) {
	t.Helper()
	failure, ok := errors.AsType[*rental.Failure](err)
	if !ok || failure.Code != code || !strings.Contains(failure.Message, words) {
		t.Errorf("failure %#v, want code %s saying %q", err, code, words)
	}
}

// A relay that is not verified must not learn anything: neither the login nor a byte of a renter.
func TestNothingIsSentBeforeVerification(t *testing.T) {
	impostor := authority(t)
	cert, err := impostor.Issue(time.Now().Add(time.Hour), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan int, 100)
	address := tlsServer(t, cert, func(conn net.Conn) {
		n, _ := conn.Read(make([]byte, 1))
		received <- n
	})
	h := run(t, tunnel.Options{})
	h.Use(rental.Terms{Address: address, Token: secret.New("token"), CAPEM: authority(t).PEM()})
	h.await(t, "a problem", func(i rental.RelayInfo) bool { return i.Problem != "" })
	if n := <-received; n != 0 {
		t.Error("the unverified server received data")
	}
}

func TestPublicAddressIsProven(t *testing.T) {
	h := run(t, tunnel.Options{})
	terms := termsOf(startRelay(t, relay.Options{}))
	terms.PublicHost = "127.0.0.2" // where the relay does not listen
	h.Use(terms)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told := listen()
	port := freePort(t)
	var publishing sync.WaitGroup
	publishing.Go(func() {
		_, err := h.Publish(ctx, "one", []rental.Route{tcpRoute(22, port, greeter(t, "one"))}, told.hear)
		wantFailure(t, err, rental.CodeTunnelFailed, "cannot be reached from here: connection refused")
	})
	told.await(t, fmt.Sprintf("has opened 127.0.0.2:%d, but it cannot be reached from here", port))
	cancel()
	publishing.Wait()
	// What was given up is not left behind.
	if err := h.Withdraw(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	h.await(t, "no route", func(i rental.RelayInfo) bool { return i.Routes == 0 })
	told = listen()
	other := publish(t, h, "two", told) // a rental without ports needs no relay
	if len(other) != 0 || len(told) != 0 {
		t.Errorf("addresses %v, troubles %d, want none", other, len(told))
	}
}
