package tunnel_test

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/tunnel"
	"github.com/distributedcompute/host-agent/sandbox/relay"
)

// A renter who holds all connections he may have stands in nobody's way but his own.
func TestRentalFillsItsOwnSlotsOnly(t *testing.T) {
	h := run(t, tunnel.Options{})
	h.Use(termsOf(startRelay(t, relay.Options{})))
	target, halted := gusher(t)
	one := publish(t, h, "one", listen(), tcpRoute(22, freePort(t), target), tcpRoute(23, freePort(t), target))
	two := publish(t, h, "two", listen(), tcpRoute(22, freePort(t), greeter(t, "two")))

	// The proof of the ports may have slots until the relay has seen its end.
	const most = 256
	var last net.Conn
	for i := range most {
		last = awaitGreeted(t, one[i%2])
	}
	for _, address := range one {
		if greeted(t, dialPublic(t, address)) {
			t.Errorf("%s carries one connection more than %d", address.Public, most)
		}
	}
	wantGreeting(t, two[0], "two")

	// A renter who leaves makes room, also when he has left a download unread.
	io.WriteString(last, "!")
	<-halted
	last.Close()
	awaitGreeted(t, one[0])
}

// awaitGreeted makes connections until one is served, and returns that.
func awaitGreeted(t *testing.T, address rental.Address) net.Conn {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		conn := dialPublic(t, address)
		if greeted(t, conn) {
			return conn
		}
		conn.Close()
	}
	t.Fatalf("%s serves no connection", address.Public)
	return nil
}

// greeted reports whether a service greets, rather than the relay ending the connection.
func greeted(t *testing.T, conn net.Conn) bool {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	n, err := conn.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("a connection was neither served nor ended")
	}
	return n == 1
}

// What renters send to a container that does not read takes little of this host's memory.
func TestUnreadUploadsTakeLittleMemory(t *testing.T) {
	h := run(t, tunnel.Options{})
	h.Use(termsOf(startRelay(t, relay.Options{})))
	one := publish(t, h, "one", listen(), tcpRoute(22, freePort(t), deaf(t)))
	before := heap()
	const connections = 16
	var renters sync.WaitGroup
	for range connections {
		conn := dialPublic(t, one[0])
		renters.Go(func() { stall(t, conn) })
	}
	renters.Wait()
	const most = 2<<20 + 512<<10 // a buffer of 1 MiB may have grown to twice that
	each := (heap() - before) / connections
	t.Logf("each stalled connection takes %d KiB", each>>10)
	if each > most {
		t.Errorf("each stalled connection takes %d KiB, want at most %d", each>>10, most>>10)
	}
}

func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
