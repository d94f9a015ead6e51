package demo

import (
	"io"
	"net"
	"os"
	"sync"
)

// window leads from the machine's own network into the demo's: a socket in the file system, which
// both have in common, joins the two halves.
type window struct {
	Address string `json:"address"` // where a browser looks in, "127.0.0.1:40123"
	Socket  string `json:"socket"`
}

// open serves the inner half, which leads to the rental's public address.
func (w window) open(address string) (*forwarder, error) {
	listener, err := net.Listen("unix", w.Socket)
	if err != nil {
		return nil, err
	}
	// The demo outside may be another user; the socket's directory is that user's alone.
	if err := os.Chmod(w.Socket, 0o666); err != nil {
		_ = listener.Close()
		return nil, err
	}
	return forward(listener, "tcp", address), nil
}

// forwarder hands connections on.
type forwarder struct {
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
}

// forward hands every connection of a listener on to an address until close.
func forward(listener net.Listener, network, address string) *forwarder {
	f := &forwarder{listener: listener, open: map[net.Conn]bool{}}
	f.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			f.running.Go(func() { f.join(conn, network, address) })
		}
	})
	return f
}

// close ends the listener and every connection.
func (f *forwarder) close() {
	_ = f.listener.Close()
	f.mu.Lock()
	f.closed = true
	for conn := range f.open {
		_ = conn.Close()
	}
	f.mu.Unlock()
	f.running.Wait()
}

// join carries bytes both ways until either side ends.
func (f *forwarder) join(near net.Conn, network, address string) {
	defer f.drop(near)
	far, err := net.Dial(network, address)
	if err != nil {
		return
	}
	defer f.drop(far)
	if !f.keep(near, far) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { carry(near, far) })
	carry(far, near)
	back.Wait()
}

// carry copies what comes until its end, and passes the end on.
func carry(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// keep makes connections known to close; false says that it has been called.
func (f *forwarder) keep(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, conn := range conns {
		f.open[conn] = true
	}
	return !f.closed
}

func (f *forwarder) drop(conn net.Conn) {
	_ = conn.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, conn)
}
