package tunnel_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
)

// tlsServer accepts TLS connections and hands each to serve.
func tlsServer(t *testing.T, cert tls.Certificate, serve func(net.Conn)) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
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
			serve(conn)
			conn.Close()
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String()
}

// gate is a network between a host and a relay. While it is frozen, connections stay open and
// nothing comes through.
type gate struct {
	addr string

	mu     sync.Mutex
	thawed chan struct{} // closed while data may pass
}

func newGate(t *testing.T, to string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{addr: l.Addr().String(), thawed: make(chan struct{})}
	close(g.thawed)
	ctx, cancel := context.WithCancel(context.Background())
	var carrying sync.WaitGroup
	carrying.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			context.AfterFunc(ctx, func() { near.Close(); far.Close() })
			carrying.Go(func() { g.carry(ctx, near, far) })
			carrying.Go(func() { g.carry(ctx, far, near) })
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); carrying.Wait() })
	return g
}

func (g *gate) carry(ctx context.Context, from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	chunk := make([]byte, 32<<10)
	for {
		n, err := from.Read(chunk)
		g.mu.Lock()
		thawed := g.thawed
		g.mu.Unlock()
		select {
		case <-thawed:
		case <-ctx.Done():
			return
		}
		if _, lost := to.Write(chunk[:n]); err != nil || lost != nil {
			return
		}
	}
}

func (g *gate) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.thawed = make(chan struct{})
}

func (g *gate) thaw() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.thawed)
}
