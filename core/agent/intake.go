package agent

import (
	"errors"
	"net/url"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
)

// handle takes one message of the backend. Every message with an id is answered exactly once, by
// the one call of answer or reply that each case leads to.
func (l *loop) handle(in protocol.Incoming) {
	l.parts.Rentals.Heard()
	l.asked(in)
	reply := func(result any, err error) { l.reply(in, result, err) }
	answer := func(err error) { reply(nil, err) }
	switch message := in.Data.(type) {
	case *protocol.Registered:
		l.registered(message)
		answer(nil)
	case *protocol.StartInstance:
		l.startRental(message, answer)
	case *protocol.StopInstance:
		l.stopRental(message, answer)
	case *protocol.DrainNode:
		l.want(byBackend, drainOf(message), backendMayGoOn(answer))
	case *protocol.ResumeNode:
		l.want(byBackend, Wish{State: protocol.Online}, backendMayGoOn(answer))
	case *protocol.GetLogs:
		l.readLogs(message, reply)
	case *protocol.RunSpeedtest:
		l.runSpeedtest(reply)
	case *protocol.Earnings:
		l.earned(message)
		l.keep(func(error) {})
		answer(nil)
	case *protocol.Notice:
		l.notice(message)
		answer(nil)
	case *protocol.SetOfferRequest:
		l.propose(message.Offer)
		l.keep(func(error) { reply(l.offer, nil) })
	case *protocol.StatusReceived:
		l.settleRental(message, answer)
	default:
		answer(refuse(protocol.UnknownEvent, "this agent knows no %s", in.Data.Event()))
	}
}

// reply answers a message, if it wants one.
func (l *loop) reply(in protocol.Incoming, result any, err error) {
	if in.ID == "" {
		return
	}
	answer := protocol.CommandResult{OK: true, Result: result}
	if err != nil {
		answer = protocol.CommandResult{Error: l.wireError(in, err)}
	}
	l.answered(in, answer)
	l.answers = append(l.answers, func() { l.parts.Link.Answer(in, answer) })
}

// wireError is what the backend gets to know of an error. What has no code may speak of this
// host's files, and goes to the log only.
func (l *loop) wireError(in protocol.Incoming, err error) *protocol.Error {
	if known, ok := errors.AsType[*protocol.Error](err); ok {
		return known
	}
	if failure, ok := errors.AsType[*rental.Failure](err); ok {
		return wireFailure(failure)
	}
	l.log.Error("carrying out what the backend asked for", "event", in.Data.Event(), "error", err)
	return refuse(protocol.Internal, "the agent could not carry this out; the log on the host says why")
}

// backendMayGoOn answers a wish that is in force: that it could not be written down is the host's
// own problem, and shown there.
func backendMayGoOn(answer func(error)) func(error) {
	return func(error) { answer(nil) }
}

func (l *loop) registered(r *protocol.Registered) {
	if r.NodeID != "" && r.NodeID != l.memory.NodeID {
		l.become(r.NodeID)
	}
	if r.HeartbeatIntervalS > 0 {
		l.parts.Link.SetInterval(time.Duration(r.HeartbeatIntervalS) * time.Second)
	}
	l.useRelay(r.Relay)
	if r.Earnings != nil {
		l.earned(r.Earnings)
	}
	l.keep(func(error) {})
	l.tellAll()
}

// drainOf reads a drain: with stop_instances the rentals that are left end at the deadline, or at
// once where there is none; without, they have all the time they need.
func drainOf(d *protocol.DrainNode) Wish {
	w := Wish{State: protocol.Draining}
	if d.StopInstances {
		w.EndAt = plain(d.Deadline)
		if w.EndAt.IsZero() {
			w.EndAt = plain(time.Now())
		}
	}
	return w
}

func (l *loop) earned(e *protocol.Earnings) {
	if !reflect.DeepEqual(e, l.memory.Earned) {
		l.memory.Earned = e
		l.remember()
	}
}

func (l *loop) propose(offer protocol.Offer) {
	if reflect.DeepEqual(&offer, l.memory.Proposal) {
		return
	}
	l.memory.Proposal = &offer
	l.asker = byBackend
	l.remember()
	l.reoffer()
}

// notice keeps the latest messages of the backend, made safe to show.
func (l *loop) notice(n *protocol.Notice) {
	const most = 10
	l.notices = append(l.notices, Notice{At: time.Now().UTC(), Notice: protocol.Notice{
		Title:    shown(n.Title, 200),
		Body:     shown(n.Body, 2000),
		URL:      safeURL(n.URL),
		Severity: shown(n.Severity, 20),
	}})
	l.notices = l.notices[max(0, len(l.notices)-most):]
	l.stale = true
}

// shown is text without control and formatting characters, cut to a length in characters.
func shown(text string, most int) string {
	clean := []rune(strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, text))
	return string(clean[:min(len(clean), most)])
}

// safeURL lets through what a browser may be sent to.
func safeURL(raw string) string {
	if u, err := url.Parse(raw); err != nil || u.Scheme != "https" || u.Host == "" || len(raw) > 2000 {
		return ""
	}
	return raw
}
