package backend

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// read is the one loop that receives. When the agent or the writer cannot keep up it stops
// reading, and the transport holds the backend back.
func (s *session) read(alive context.Context, leaving <-chan struct{}) error {
	s.conn.SetReadLimit(protocol.MaxFrameBytes)
	s.conn.SetPingHandler(func(data string) error {
		latest(s.pongs, data)
		return s.heard()
	})
	s.conn.SetPongHandler(func(string) error { return s.heard() })
	for {
		s.hold(alive, leaving)
		if err := s.heard(); err != nil {
			return err
		}
		kind, frame, err := s.conn.ReadMessage()
		switch {
		case errors.Is(err, websocket.ErrReadLimit): // the library has sent 1009
			return &setback{problem: "The backend sent a frame above 256 KiB, so the connection was closed.", cause: errHungUp}
		case err != nil:
			return err
		case kind != websocket.TextMessage:
			return s.hangUp(websocket.CloseUnsupportedData, "The backend sent a frame that is not text, so the connection was closed.")
		case !utf8.Valid(frame):
			return s.hangUp(websocket.CloseInvalidFramePayloadData, "The backend sent text that is not UTF-8, so the connection was closed.")
		}
		s.receive(alive, leaving, frame)
	}
}

// heard gives the peer time until it must be heard again: any frame is a sign of life. Time in
// which nobody read does not count.
func (s *session) heard() error {
	return s.conn.SetReadDeadline(time.Now().Add(s.link.times.silence))
}

// hangUp closes a connection whose peer breaks the contract.
func (s *session) hangUp(code int, problem string) error {
	_ = s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(s.link.times.farewell))
	return &setback{problem: problem, cause: errHungUp}
}

// receive handles one frame. What the link can answer by itself never reaches the agent.
func (s *session) receive(alive context.Context, leaving <-chan struct{}, frame []byte) {
	in, err := protocol.Decode(frame)
	in.Connection = s.number
	if refusal, ok := errors.AsType[*protocol.DecodeError](err); ok {
		s.refuse(refusal)
		return
	}
	if in.Dropped != nil {
		s.complain("the backend sent a part that is left out", in.Data.Event(), in.Dropped)
	}
	switch message := in.Data.(type) {
	case *protocol.Registered:
		in.ID = "" // that of our own register: it wants no answer
		s.registered.CompareAndSwap(0, max(1, int64(time.Since(s.opened))))
		s.link.note(s.talk.changed, func(h *protocol.LinkHealth) { h.Registered, h.Problem = true, "" })
	case *protocol.StatusReceived:
		s.link.out.settle(message.RentalID, message.Sequence)
	}
	if s.repeated(in.ID) {
		return
	}
	s.hand(alive, leaving, in)
}

// refuse answers a frame that was not understood, if it can be answered. The host is told of a refused
// registered: its terms are not in force.
func (s *session) refuse(refusal *protocol.DecodeError) {
	if refusal.Event == (protocol.Registered{}).Event() {
		problem := "The backend's answer to this host's registration is of no use (" + clean(refusal.Err.Message) + ")."
		s.link.note(s.talk.changed, func(h *protocol.LinkHealth) { h.Problem = problem })
	}
	if refusal.ID == "" || strings.HasPrefix(refusal.ID, s.registerPrefix) {
		s.complain("the backend sent what cannot be answered", refusal.Event, refusal.Err)
		return
	}
	if s.repeated(refusal.ID) {
		return
	}
	s.link.Answer(protocol.Incoming{ID: refusal.ID, Connection: s.number}, protocol.CommandResult{Error: refusal.Err})
}

// complain logs what is wrong with a frame, unless there was a complaint just now.
func (s *session) complain(about, event string, problem *protocol.Error) {
	if dropped, now := s.complaints.allow(time.Now()); now {
		s.link.log.Warn(about, "event", event, "problem", problem.Message, "dropped_before", dropped)
	}
}

// repeated reports whether a command with that id is known on this connection. If it has been
// answered, it is answered again.
func (s *session) repeated(id string) bool {
	if id == "" {
		return false
	}
	answer, known := s.link.replies.begin(id)
	if answer != nil {
		s.link.out.answer(s.number, answer)
	}
	return known
}

// hold waits while so many answers are unsent that no further frame should be read.
func (s *session) hold(alive context.Context, leaving <-chan struct{}) {
	defer s.stalled.Store(false)
	for s.link.out.crowded() {
		s.stalled.Store(true)
		select {
		case <-s.link.out.room:
		case <-leaving:
			return
		case <-alive.Done():
			return
		}
	}
}

// hand gives a message to the agent and waits until it takes it. An agent that leaves takes none.
func (s *session) hand(alive context.Context, leaving <-chan struct{}, in protocol.Incoming) {
	select {
	case s.link.commands <- in:
		return
	default:
	}
	s.stalled.Store(true)
	defer s.stalled.Store(false)
	select {
	case s.link.commands <- in:
	case <-leaving:
	case <-alive.Done():
	}
}

// throttle lets one complaint through every ten seconds and counts the others.
type throttle struct {
	last    time.Time
	dropped int
}

func (t *throttle) allow(now time.Time) (dropped int, ok bool) {
	if !t.last.IsZero() && now.Sub(t.last) < 10*time.Second {
		t.dropped++
		return 0, false
	}
	dropped, t.dropped, t.last = t.dropped, 0, now
	return dropped, true
}
