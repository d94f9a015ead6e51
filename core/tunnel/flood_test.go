package tunnel

import (
	"context"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/fatedier/frp/pkg/msg"
	"github.com/hashicorp/yamux"

	"github.com/distributedcompute/host-agent/core/secret"
)

// A relay that asks for streams without end, and takes none, costs no more than it may.
func TestFloodOfRequests(t *testing.T) {
	token := secret.New("token")
	here, there := net.Pipe()
	mux, err := yamux.Client(here, nil)
	if err != nil {
		t.Fatal(err)
	}
	relay, err := yamux.Server(there, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	control, err := mux.Open()
	if err != nil {
		t.Fatal(err)
	}
	cipher, err := encipher(control, token)
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancelCause(context.Background())
	s := &session{mux: mux, control: control, cipher: cipher, token: token, ended: ended, end: end}

	before := runtime.NumGoroutine()
	fence := make(chan struct{})
	served := make(chan error, 1)
	go func() { served <- s.serve(t.Context(), func(event) { close(fence) }) }()
	go func() {
		stream, err := relay.Accept()
		if err != nil {
			return
		}
		wild, err := encipher(stream, token)
		for range 3 * mostStreams {
			if err == nil {
				err = msg.WriteMsg(wild, &msg.ReqWorkConn{})
			}
		}
		if err == nil {
			err = msg.WriteMsg(wild, &msg.Pong{})
		}
		if err != nil {
			t.Errorf("asking for streams: %v", err)
		}
	}()
	select {
	case <-fence:
	case <-time.After(time.Minute):
		t.Fatal("the requests were not read")
	}
	const most = 2 * mostStreams // yamux may have one of its own for each stream that it opens
	if now := runtime.NumGoroutine() - before; now > most {
		t.Errorf("%d goroutines for %d requests, want no more than %d", now, 3*mostStreams, most)
	}
	s.fail(errLost)
	<-served
	s.streams.Wait()
}
