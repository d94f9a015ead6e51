package tunnel_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/tunnel"
	"github.com/distributedcompute/host-agent/sandbox/relay"
)

func TestPublishAndWithdraw(t *testing.T) {
	h := run(t, tunnel.Options{})
	r := startRelay(t, relay.Options{})
	h.Use(termsOf(r))
	told := listen()
	ssh, web := freePort(t), freePort(t)
	one := publish(t, h, "one", told,
		tcpRoute(22, ssh, greeter(t, "one/22")), tcpRoute(8888, web, greeter(t, "one/8888")))
	two := publish(t, h, "two", told, tcpRoute(22, freePort(t), greeter(t, "two/22")))

	want := []rental.Address{
		{Port: rental.Port{Container: 22, Protocol: rental.TCP, Public: ssh}, Public: fmt.Sprintf("127.0.0.1:%d", ssh)},
		{Port: rental.Port{Container: 8888, Protocol: rental.TCP, Public: web}, Public: fmt.Sprintf("127.0.0.1:%d", web)},
	}
	if diff := cmp.Diff(want, one); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	wantGreeting(t, one[0], "one/22")
	wantGreeting(t, one[1], "one/8888")
	wantGreeting(t, two[0], "two/22")
	if routes := h.Info().Routes; routes != 3 {
		t.Errorf("info counts %d routes, want 3", routes)
	}

	for range 2 { // the second finds nothing to do
		if err := h.Withdraw(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
	}
	wantRefused(t, one[0])
	wantRefused(t, one[1])
	wantGreeting(t, two[0], "two/22")
	if len(told) > 0 {
		t.Errorf("trouble %q, want none", <-told)
	}
}

func TestPublishReplaces(t *testing.T) {
	h := run(t, tunnel.Options{})
	h.Use(termsOf(startRelay(t, relay.Options{})))
	kept, dropped := freePort(t), freePort(t)
	before := publish(t, h, "one", listen(),
		tcpRoute(22, kept, greeter(t, "before")), tcpRoute(23, dropped, greeter(t, "before")))
	after := publish(t, h, "one", listen(), tcpRoute(22, kept, greeter(t, "after")))
	wantGreeting(t, after[0], "after")
	wantRefused(t, before[1])
}

func TestPublishUDP(t *testing.T) {
	h := run(t, tunnel.Options{})
	h.Use(termsOf(startRelay(t, relay.Options{})))
	public := freePort(t)
	route := rental.Route{Port: rental.Port{Container: 53, Protocol: rental.UDP, Public: public}, Target: echo(t)}
	told := listen()
	addresses := publish(t, h, "one", told, route)

	conn, err := net.Dial("udp", addresses[0].Public)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer := make([]byte, 10000)
	ask := func(question string) string {
		conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
		io.WriteString(conn, question)
		n, _ := conn.Read(answer)
		return string(answer[:n])
	}
	// The relay takes half a second to join the route's data stream; until then datagrams wait or are lost.
	for _, size := range []int{10, 1472} {
		question := strings.Repeat("?", size)
		for end := time.Now().Add(patience); ask(question) != strings.Repeat(question, 3); {
			if time.Now().After(end) {
				t.Fatalf("no answer to %d bytes came back", size)
			}
		}
	}
	if err := h.Withdraw(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenPacket("udp", addresses[0].Public)
	if err != nil {
		t.Fatalf("the relay still holds the port: %v", err)
	}
	l.Close()
}

func TestLeaveClosesEverything(t *testing.T) {
	h := run(t, tunnel.Options{})
	h.Use(termsOf(startRelay(t, relay.Options{})))
	addresses := publish(t, h, "one", listen(), tcpRoute(22, freePort(t), greeter(t, "one")))
	h.leave()
	if err := h.Withdraw(t.Context(), "one"); err != nil {
		t.Errorf("withdrawing after the end: %v", err)
	}
	_, err := h.Publish(t.Context(), "one", nil, listen().hear)
	wantFailure(t, err, rental.CodeTunnelFailed, "the agent is leaving")
	for end := time.Now().Add(patience); greeting(addresses[0].Public) != ""; {
		if time.Now().After(end) {
			t.Fatal("the route is still open")
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	h := run(b, tunnel.Options{})
	h.Use(termsOf(startRelay(b, relay.Options{})))
	h.awaitConnected(b)
	routes := []rental.Route{tcpRoute(22, freePort(b), greeter(b, "one"))}
	for b.Loop() {
		if _, err := h.Publish(b.Context(), "one", routes, func(string) {}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestManyBytesArriveWhole(t *testing.T) {
	h := run(t, tunnel.Options{})
	h.Use(termsOf(startRelay(t, relay.Options{})))
	addresses := publish(t, h, "one", listen(), tcpRoute(22, freePort(t), mirror(t)))
	sent := make([]byte, 16<<20)
	rand.Read(sent)
	var renters sync.WaitGroup
	for range 3 {
		renters.Go(func() {
			conn, err := net.Dial("tcp", addresses[0].Public)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			var sending sync.WaitGroup
			sending.Go(func() { conn.Write(sent) })
			came := make([]byte, len(sent))
			if _, err := io.ReadFull(conn, came); err != nil || !bytes.Equal(came, sent) {
				t.Errorf("%v: what came back is not what was sent", err)
			}
			sending.Wait()
		})
	}
	renters.Wait()
}

// Renters connect and talk while routes come and go: nothing may race, block or stay behind.
func TestRoutesComeAndGoUnderTraffic(t *testing.T) {
	h := run(t, tunnel.Options{})
	h.Use(termsOf(startRelay(t, relay.Options{})))
	ssh, dns := freePort(t), freePort(t)
	routes := []rental.Route{
		tcpRoute(22, ssh, greeter(t, "one")),
		{Port: rental.Port{Container: 53, Protocol: rental.UDP, Public: dns}, Target: echo(t)},
	}
	ctx, stop := context.WithCancel(t.Context())
	var renters sync.WaitGroup
	for range 4 {
		renters.Go(func() {
			for ctx.Err() == nil {
				greeting(fmt.Sprintf("127.0.0.1:%d", ssh))
			}
		})
		renters.Go(func() {
			conn, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", dns))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			datagram := make([]byte, 1000)
			for ctx.Err() == nil {
				conn.Write(datagram)
				conn.SetReadDeadline(time.Now().Add(time.Millisecond))
				conn.Read(datagram)
			}
		})
	}
	for range 5 {
		publish(t, h, "one", listen(), routes...)
		// The relay takes half a second to join a UDP route: only then does its traffic flow.
		for end := time.Now().Add(700 * time.Millisecond); time.Now().Before(end); {
			greeting(fmt.Sprintf("127.0.0.1:%d", ssh))
		}
		if err := h.Withdraw(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, h, "one", listen(), routes...)
	h.leave()
	stop()
	renters.Wait()
}
