package backend

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// session is one connection, from register to goodbye.
type session struct {
	link           *Link
	number         uint64 // of this connection
	conn           *websocket.Conn
	talk           talk
	registerPrefix string // of the ids of this connection's registers
	registers      int    // sent; the writer's own
	opened         time.Time
	registered     atomic.Int64            // when, as time since opened; 0: not yet
	beats          chan protocol.Heartbeat // capacity 1, the latest
	pongs          chan string             // capacity 1, the latest
	stalled        atomic.Bool             // the reader waits for the agent or the writer
	complaints     throttle                // of the reader
}

func newSession(l *Link, number uint64, conn *websocket.Conn, talk talk) *session {
	return &session{
		link:           l,
		number:         number,
		conn:           conn,
		talk:           talk,
		registerPrefix: rand.Text() + "-",
		opened:         time.Now(),
		beats:          make(chan protocol.Heartbeat, 1),
		pongs:          make(chan string, 1),
	}
}

// What ends a session from here: the agent leaves, or the peer has broken the contract and was
// sent a close frame.
var (
	errLeft   = errors.New("the agent leaves")
	errHungUp = errors.New("the peer broke the contract of frames")
)

// run opens the session and keeps its three loops until the first of them ends, which is the
// session's end. The end of ctx lets the writer finish first.
func (s *session) run(ctx context.Context) error {
	alive, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	var loops sync.WaitGroup
	loops.Go(func() { end(s.read(alive, ctx.Done())) })
	loops.Go(func() {
		err := s.write(alive, ctx.Done())
		s.await(alive, s.link.times.farewell) // the reader may know more: the answer to our close, or a close with its code
		end(err)
	})
	loops.Go(func() {
		if err := s.beat(alive); err != nil {
			end(err)
		}
	})
	select {
	case <-alive.Done():
	case <-ctx.Done():
		s.await(alive, s.link.times.flush+s.link.times.farewell)
		end(errLeft)
	}
	if errors.Is(context.Cause(alive), errHungUp) {
		s.linger()
	}
	_ = s.conn.Close() // wakes who still reads or writes
	loops.Wait()
	return context.Cause(alive)
}

// linger takes what is still under way: a connection that is closed with unread bytes is reset,
// and the reset would overtake the close frame that says why. The reader has ended before.
func (s *session) linger() {
	_ = s.conn.NetConn().SetReadDeadline(time.Now().Add(s.link.times.farewell))
	_, _ = io.Copy(io.Discard, s.conn.NetConn())
}

// await waits for the end of the session, but not for ever.
func (s *session) await(alive context.Context, patience time.Duration) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-alive.Done():
	case <-timer.C:
	}
}

// proven reports whether the session lasted long enough to forgive the failures before it.
func (s *session) proven() bool {
	age := time.Since(s.opened)
	registered := s.registered.Load()
	return registered > 0 && age-time.Duration(registered) >= s.link.times.healthy || age >= s.link.times.lasting
}
