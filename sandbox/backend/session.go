package backend

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

const (
	writeWithin = 10 * time.Second
	// silence is how long an agent may say nothing: it pings every 20 s.
	silence = 60 * time.Second
	// farewell is how long a connection that is over may take to say goodbye.
	farewell = time.Second

	closePolicyViolation = websocket.ClosePolicyViolation
)

var errGone = errors.New("the connection to the node was lost before it answered")

// session is one connection of a node.
type session struct {
	node *node
	key  *hostKey
	conn *websocket.Conn
	gone chan struct{} // closed when nothing more will be read

	writing sync.Mutex    // one writer at a time
	telling sync.Mutex    // held from reckoning earnings until they are sent, so that none overtakes newer ones
	turned  chan struct{} // capacity 1: the node may have begun or ceased to earn

	mu      sync.Mutex
	waiting map[string]chan protocol.CommandResult // by id, capacity 1
}

func (b *Backend) accept(w http.ResponseWriter, r *http.Request) {
	key, no := b.admit(r)
	if no != nil {
		b.record(Event{Kind: Refused})
		refuse(w, no)
		return
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: writeWithin,
		// Agents are no browsers: a page in the owner's browser must not come in.
		CheckOrigin: func(r *http.Request) bool { return r.Header.Get("Origin") == "" },
	}
	if !b.options.SeedOnly {
		upgrader.Subprotocols = []string{protocol.Subprotocol}
	}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		b.options.Log.Warn("refused a connection", "error", err)
		return
	}
	b.serve(&session{
		node:    key.node,
		key:     key,
		conn:    conn,
		gone:    make(chan struct{}),
		turned:  make(chan struct{}, 1),
		waiting: map[string]chan protocol.CommandResult{},
	})
}

// serve reads until the connection breaks.
func (b *Backend) serve(s *session) {
	defer s.conn.Close()
	if !b.join(s) {
		return
	}
	defer b.leave(s)
	b.sessions.Go(func() { b.tellWhileEarning(s) })
	s.conn.SetReadLimit(protocol.MaxFrameBytes)
	s.conn.SetPingHandler(func(data string) error {
		_ = s.conn.SetReadDeadline(time.Now().Add(silence))
		_ = s.conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(writeWithin))
		return nil
	})
	for {
		_ = s.conn.SetReadDeadline(time.Now().Add(silence))
		_, frame, err := s.conn.ReadMessage()
		if err != nil {
			b.options.Log.Info("connection ended", "node", s.node.id, "reason", err)
			return
		}
		b.receive(s, frame)
	}
}

// join makes s the node's connection, in place of an older one: its agent has given that one up, or
// is another agent with the same key, which is told.
// It reports false when the backend is going down, or the key has gone since it was shown.
func (b *Backend) join(s *session) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server == nil || b.check(s.key) != nil {
		return false
	}
	b.sessions.Add(1)
	if older := s.node.session; older != nil {
		b.sessions.Go(func() { older.dismiss(protocol.CloseReplaced, "replaced by another connection of this node") })
	}
	s.node.session = s
	s.node.registered = false
	s.node.connections++
	b.append(Event{Kind: Connected, Node: s.node.id})
	return true
}

func (b *Backend) leave(s *session) {
	defer b.sessions.Done()
	close(s.gone)
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.node.session == s {
		s.node.session = nil
		s.node.registered = false
	}
	b.append(Event{Kind: Disconnected, Node: s.node.id})
}

// Cut breaks every connection: abruptly for code 0, else with a WebSocket close code such as 1012.
func (b *Backend) Cut(code int) {
	b.mu.Lock()
	var open []*session
	for _, node := range b.nodes {
		if node.session != nil {
			open = append(open, node.session)
		}
	}
	b.mu.Unlock()
	for _, s := range open {
		s.cut(code)
	}
}

func (s *session) cut(code int) {
	if code != 0 {
		reason := websocket.FormatCloseMessage(code, "")
		_ = s.conn.WriteControl(websocket.CloseMessage, reason, time.Now().Add(writeWithin))
	}
	_ = s.conn.Close()
}

// dismiss tells an agent why its connection is over. What has arrived on it is read until the agent
// closes too: unread, it would make the goodbye get lost.
func (s *session) dismiss(code int, reason string) {
	_ = s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(farewell))
	select {
	case <-s.gone:
	case <-time.After(farewell):
	}
	_ = s.conn.Close()
}

// write sends a text frame.
func (s *session) write(frame []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeWithin))
	return s.conn.WriteMessage(websocket.TextMessage, frame)
}

func (s *session) send(id string, message protocol.Message) error {
	frame, err := protocol.Encode(id, message)
	if err != nil {
		return err
	}
	return s.write(frame)
}

// look has what is pushed while the node earns go by what it earns now.
func (s *session) look() {
	select {
	case s.turned <- struct{}{}:
	default:
	}
}

// expect makes a place for the answer to id.
func (s *session) expect(id string) <-chan protocol.CommandResult {
	place := make(chan protocol.CommandResult, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[id] = place
	return place
}

// answered hands a result to whoever expects it; a second one for the same id has nowhere to go.
func (s *session) answered(id string, result protocol.CommandResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if place, ok := s.waiting[id]; ok {
		delete(s.waiting, id)
		place <- result
	}
}
