package backend

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gorilla/websocket"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// write is the one loop that sends. It takes one thing at a time, so that a long queue delays no
// heartbeat and no ping.
func (s *session) write(alive context.Context, leaving <-chan struct{}) error {
	if err := s.open(); err != nil {
		return err
	}
	ping := time.NewTimer(s.nextPing())
	defer ping.Stop()
	for {
		var err error
		select {
		case <-alive.Done():
			return nil
		case <-leaving:
			return s.leave()
		case beat := <-s.beats:
			err = s.beatOnce(beat)
		case data := <-s.pongs:
			err = s.control(websocket.PongMessage, data)
		case <-ping.C:
			err = s.ping()
			ping.Reset(s.nextPing())
		case <-s.link.again:
			err = s.register()
		case <-s.link.out.ready:
			err = s.sendNext()
		}
		if err != nil {
			return err
		}
	}
}

// open says who is here and beats once: a backend that never answers register gets its beats too.
func (s *session) open() error {
	if err := s.register(); err != nil {
		return err
	}
	return s.beatOnce(s.talk.heartbeat())
}

// register says who is here, each time under an id of its own.
func (s *session) register() error {
	untick(s.link.again) // what changed until now is said by this one
	said := s.talk.register()
	s.link.out.introduced(said.Status)
	s.registers++
	register, err := protocol.Encode(fmt.Sprintf("%s%d", s.registerPrefix, s.registers), said)
	if err != nil {
		return &setback{problem: fmt.Sprintf("This host's registration cannot be sent (%s).", clean(err.Error())), cause: err}
	}
	return s.sendFrame(register)
}

// nextPing spreads pings by ±10 %, so that agents do not fall into step.
func (s *session) nextPing() time.Duration {
	tenth := s.link.times.ping / 10
	return s.link.times.ping - tenth + rand.N(2*tenth)
}

// ping asks for a sign of life. While the reader waits for the agent nobody would see the answer,
// nor the backend's own pings: then an unasked pong says that this side is alive.
func (s *session) ping() error {
	if s.stalled.Load() {
		return s.control(websocket.PongMessage, "")
	}
	return s.control(websocket.PingMessage, "")
}

func (s *session) control(kind int, data string) error {
	return s.conn.WriteControl(kind, []byte(data), time.Now().Add(s.link.times.write))
}

// sendNext sends the next thing of the outbox, which gets it back if that fails.
func (s *session) sendNext() error {
	p, ok := s.link.out.take()
	if !ok {
		return nil
	}
	frame := p.frame
	if p.message != nil {
		var err error
		if frame, err = protocol.Encode("", p.message); err != nil {
			s.link.log.Error("a message cannot be sent", "error", err)
			return nil
		}
	}
	if err := s.sendFrame(frame); err != nil {
		s.link.out.putBack(p)
		return err
	}
	return nil
}

func (s *session) beatOnce(beat protocol.Heartbeat) error {
	frame, err := protocol.Encode("", &beat)
	if err != nil {
		s.link.log.Error("a heartbeat cannot be sent", "error", err)
		return nil
	}
	return s.sendFrame(frame)
}

func (s *session) sendFrame(frame []byte) error {
	_ = s.conn.SetWriteDeadline(time.Now().Add(s.link.times.write))
	return s.conn.WriteMessage(websocket.TextMessage, frame)
}

// leave sends what is queued, within a bound, and says goodbye.
func (s *session) leave() error {
	for limit := time.Now().Add(s.link.times.flush); !s.link.out.empty() && time.Now().Before(limit); {
		if err := s.sendNext(); err != nil {
			return err
		}
	}
	goodbye := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
	if err := s.conn.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(s.link.times.farewell)); err != nil {
		return err
	}
	return errLeft
}
