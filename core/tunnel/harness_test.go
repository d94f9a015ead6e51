package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/tunnel"
	"github.com/distributedcompute/host-agent/sandbox/ca"
	"github.com/distributedcompute/host-agent/sandbox/relay"
)

var _ rental.Relay = (*tunnel.Relay)(nil)

// patience bounds every wait of a test; it is no measure of anything.
const patience = time.Minute

// host is a Relay that runs, with what it has told.
type host struct {
	*tunnel.Relay
	infos chan struct{} // tick: Info has changed
	leave func()        // ends Run and waits for it
}

func run(t testing.TB, o tunnel.Options) *host {
	t.Helper()
	if o.Prefix == "" {
		o.Prefix = "test"
	}
	h := &host{Relay: tunnel.New(o), infos: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		err := h.Run(ctx, func() {
			select {
			case h.infos <- struct{}{}:
			default:
			}
		})
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	h.leave = func() { cancel(); running.Wait() }
	t.Cleanup(h.leave)
	return h
}

// await returns the first Info that fits.
func (h *host) await(t testing.TB, what string, fits func(rental.RelayInfo) bool) rental.RelayInfo {
	t.Helper()
	late := time.After(patience)
	for {
		if info := h.Info(); fits(info) {
			return info
		}
		select {
		case <-h.infos:
		case <-late:
			t.Fatalf("waiting for %s: info is still %+v", what, h.Info())
		}
	}
}

func (h *host) awaitConnected(t testing.TB) {
	t.Helper()
	h.await(t, "a connection", func(i rental.RelayInfo) bool { return i.Connected })
}

// troubles collects what a rental is told.
type troubles chan string

func listen() troubles { return make(troubles, 1000) }

func (told troubles) hear(sentence string) { told <- sentence }

// await returns once a sentence with these words has been told; "" waits for the all-clear.
func (told troubles) await(t *testing.T, words string) {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case sentence := <-told:
			if sentence == words || words != "" && strings.Contains(sentence, words) {
				return
			}
		case <-late:
			t.Fatalf("nobody has told %q", words)
		}
	}
}

func authority(t testing.TB) *ca.CA {
	t.Helper()
	authority, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func startRelay(t testing.TB, o relay.Options) *relay.Relay {
	t.Helper()
	if o.CA == nil {
		o.CA = authority(t)
	}
	o.Dir = t.TempDir()
	r, err := relay.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	return r
}

func termsOf(r *relay.Relay) rental.Terms {
	return rental.Terms{Address: r.Addr(), Token: r.Token(), ServerName: r.ServerName(), CAPEM: r.CAPEM()}
}

// greeter is a service in a container: it says who it is to whoever connects.
func greeter(t testing.TB, name string) netip.AddrPort {
	return container(t, func(conn net.Conn) { io.WriteString(conn, name) })
}

// mirror is a service in a container: it sends back what it gets.
func mirror(t testing.TB) netip.AddrPort {
	return container(t, func(conn net.Conn) { io.Copy(conn, conn) })
}

// deaf is a service in a container: it keeps each connection and reads nothing.
func deaf(t testing.TB) netip.AddrPort {
	end := make(chan struct{})
	target := container(t, func(net.Conn) { <-end })
	t.Cleanup(func() { close(end) })
	return target
}

// gusher is a service in a container: it greets, and floods whoever answers. It tells when such a
// flood has come to a halt, and keeps each connection until the other side ends it.
func gusher(t testing.TB) (target netip.AddrPort, halted <-chan struct{}) {
	halts := make(chan struct{}, 1)
	return container(t, func(conn net.Conn) {
		io.WriteString(conn, "!")
		answer := make([]byte, 1)
		if _, err := conn.Read(answer); err != nil {
			return
		}
		stall(t, conn)
		halts <- struct{}{}
		conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(answer); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a container's connection outlived the renter's")
		}
	}), halts
}

// container serves each connection with serve.
func container(t testing.TB, serve func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// echo is a datagram service in a container: its answer is the question, three times.
func echo(t *testing.T) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		datagram := make([]byte, 2000)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(datagram)
			if err != nil {
				return
			}
			conn.WriteToUDPAddrPort(bytes.Repeat(datagram[:n], 3), from)
		}
	})
	t.Cleanup(func() { conn.Close(); serving.Wait() })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func freePort(t testing.TB) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func tcpRoute(container, public uint16, target netip.AddrPort) rental.Route {
	return rental.Route{Port: rental.Port{Container: container, Protocol: rental.TCP, Public: public}, Target: target}
}

func publish(t testing.TB, h *host, id rental.ID, told troubles, routes ...rental.Route) []rental.Address {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	addresses, err := h.Publish(ctx, id, routes, told.hear)
	if err != nil {
		t.Fatalf("publishing %s: %v", id, err)
	}
	return addresses
}

// greeting is what the service behind a public address says, "" while it says nothing.
func greeting(address string) string {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	said, _ := io.ReadAll(conn)
	return string(said)
}

// dialPublic is a renter's connection, which lasts as long as the test.
func dialPublic(t testing.TB, address rental.Address) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address.Public)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// stall writes to conn until nothing moves any more.
func stall(t testing.TB, conn net.Conn) {
	chunk := make([]byte, 256<<10)
	for {
		conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := conn.Write(chunk)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if n == 0 {
				return
			}
		} else if err != nil {
			t.Errorf("filling a connection: %v", err)
			return
		}
	}
}

func wantGreeting(t *testing.T, address rental.Address, want string) {
	t.Helper()
	if got := greeting(address.Public); got != want {
		t.Errorf("%s said %q, want %q", address.Public, got, want)
	}
}

func wantRefused(t *testing.T, address rental.Address) {
	t.Helper()
	if conn, err := net.Dial("tcp", address.Public); err == nil {
		conn.Close()
		t.Errorf("%s accepts connections, want it closed", address.Public)
	}
}
