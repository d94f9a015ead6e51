package agent

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
)

// What concerns one rental goes through one lane, so that it happens in the order it was asked for.
func laneOf(id string) string { return "rental " + id }

// startRental takes an order to the book of rentals, if it may be taken on. It is answered when it
// is on disk.
func (l *loop) startRental(order *protocol.StartInstance, answer func(error)) {
	l.lanes.do(laneOf(order.RentalID), func() job {
		var known *rental.Status
		if s, ok := l.parts.Rentals.Lookup(rental.ID(order.RentalID)); ok {
			known = &s
		}
		spec, refusal := judge(l.host(), l.options.Limits, order, known, time.Now())
		if refusal == nil && known == nil {
			refusal = l.admitRecord()
		}
		if refusal != nil {
			l.log.Info("order refused", "rental", shown(order.RentalID, 80), "code", refusal.Code, "reason", refusal.Message)
			answer(refusal)
			return nil
		}
		if known == nil {
			l.admitted(spec)
		}
		return func(context.Context) func() {
			_, err := l.parts.Rentals.Accept(spec)
			return func() {
				l.pending = slices.DeleteFunc(l.pending, func(s rental.Status) bool { return s.ID == spec.ID })
				if err == nil && known == nil {
					l.log.Info("order accepted", "rental", spec.ID, "image", spec.Image)
					l.reconcile(l.parts.Rentals.Statuses())
				}
				answer(l.recorded(err))
			}
		}
	})
}

// judge says what exactly was ordered, or why it is refused. An order that is known is read as it
// was then, whatever the owner's limits are now, and is neither refused for want of room it already
// has, nor for a pause since: whether it is the same order, the book decides.
func judge(host *Status, limits Limits, order *protocol.StartInstance, known *rental.Status, now time.Time) (rental.Spec, *protocol.Error) {
	if known != nil {
		then := Limits{Pids: known.Spec.PidsLimit, Ports: math.MaxUint16, Registries: rental.Registries{Loopback: true}}
		return readOrder(order, append(slices.Clone(known.Spec.GPUs), gpusOf(host)...), then)
	}
	if refusal := closed(host); refusal != nil {
		return rental.Spec{}, refusal
	}
	spec, refusal := readOrder(order, gpusOf(host), limits)
	if refusal == nil {
		refusal = admit(host, limits, spec, now)
	}
	return spec, refusal
}

// mostRecords is how many rentals are remembered at most, ended ones too: a host that is sent one
// order after the other that can only fail does not fill its disk and its memory with them.
const mostRecords = 5000

func (l *loop) admitRecord() *protocol.Error {
	if l.parts.Rentals.Known()+len(l.pending) < mostRecords {
		return nil
	}
	return refuse(protocol.InsufficientResources, "rentals: this host remembers %d of the last days at most and 0 are free; confirm ends with status_received and try again later", mostRecords)
}

// host is the picture that counts for a new order: what was admitted a moment ago has its place.
func (l *loop) host() *Status {
	s := *l.board.latest.Load()
	if l.stale {
		s = *l.picture(time.Now())
	}
	s.Rentals = slices.Concat(told(l.rentals), l.pending)
	return &s
}

// admitted keeps the rental's place until the book has it.
func (l *loop) admitted(spec rental.Spec) {
	l.pending = append(l.pending, rental.Status{ID: spec.ID, State: rental.Accepted, Spec: spec})
	if l.stopTest != nil {
		l.stopTest(errRented)
	}
}

// merge takes a status into the picture, unless a newer one is there.
func (l *loop) merge(s rental.Status) {
	l.mergeAt(slices.IndexFunc(l.rentals, func(known rental.Status) bool { return known.ID == s.ID }), s)
}

func (l *loop) mergeAt(at int, s rental.Status) {
	switch {
	case at < 0:
		l.rentals = append(l.rentals, s)
	case l.rentals[at].Sequence < s.Sequence:
		l.rentals[at] = s
	}
	l.stale = true
}

// end orders the end of a rental; why is nil when the backend wants it. It is answered when the
// order is recorded.
func (l *loop) end(id rental.ID, why *rental.Failure, grace time.Duration, answer func(error)) {
	l.lanes.do(laneOf(string(id)), func() job {
		return func(context.Context) func() {
			err := l.parts.Rentals.End(id, why, grace)
			return func() { answer(err) }
		}
	})
}

// stopRental ends the rental that the backend names, by its id or its container's.
func (l *loop) stopRental(order *protocol.StopInstance, answer func(error)) {
	id := rental.ID(order.RentalID)
	if order.RentalID == "" {
		at := slices.IndexFunc(l.rentals, func(s rental.Status) bool { return s.ContainerID != "" && s.ContainerID == order.ContainerID })
		if at < 0 {
			answer(refuse(protocol.NotFound, "there is no rental with this container_id on this host"))
			return
		}
		id = l.rentals[at].ID
	}
	l.end(id, nil, graceOf(order), answer)
}

func graceOf(order *protocol.StopInstance) time.Duration {
	if order.Graceful != nil && !*order.Graceful {
		return 0
	}
	seconds := 30
	if order.GraceS != nil {
		seconds = min(max(*order.GraceS, 0), 600)
	}
	return time.Duration(seconds) * time.Second
}

// settleRental notes that the backend has recorded a rental's end.
func (l *loop) settleRental(received *protocol.StatusReceived, answer func(error)) {
	l.lanes.do(laneOf(received.RentalID), func() job {
		return func(context.Context) func() {
			err := l.parts.Rentals.Settle(rental.ID(received.RentalID), received.Sequence)
			return func() {
				if err == nil {
					l.over(func(s rental.Status) bool { return string(s.ID) == received.RentalID })
				}
				answer(l.recorded(err))
			}
		}
	})
}

// tellAll posts the status of every unsettled rental to a backend that has just registered this host.
func (l *loop) tellAll() {
	l.lanes.do("tell all", func() job {
		return func(context.Context) func() {
			statuses := l.parts.Rentals.Statuses()
			return func() {
				l.reconcile(statuses)
				for _, s := range l.rentals {
					l.parts.Link.PostInstance(instance(s))
				}
			}
		}
	})
}

// tellEnds posts what has ended before this agent was started: some backends never answer a register,
// and nobody else would tell those again.
func (l *loop) tellEnds() {
	for _, s := range l.rentals {
		if s.State.Final() {
			l.parts.Link.PostInstance(instance(s))
		}
	}
}

// reconcile follows the book: an end that nobody has settled for days is given up there.
func (l *loop) reconcile(book []rental.Status) {
	at := make(map[rental.ID]int, len(l.rentals))
	for i := range l.rentals {
		at[l.rentals[i].ID] = i
	}
	kept := make(map[rental.ID]bool, len(book))
	for _, s := range book {
		kept[s.ID] = true
		i, known := at[s.ID]
		if !known {
			i = -1
		}
		l.mergeAt(i, s)
	}
	l.over(func(s rental.Status) bool { return s.State.Final() && !kept[s.ID] })
}

// What has ended is shown to the host's owner for a while: so long, and so many at most.
const (
	endedShown = 24 * time.Hour
	mostShown  = 20
)

// over moves settled rentals to those that have ended.
func (l *loop) over(settled func(rental.Status) bool) {
	for _, s := range l.rentals {
		if settled(s) {
			l.ended = append(l.ended, s)
		}
	}
	l.ended = recent(l.ended, time.Now())
	l.rentals = slices.DeleteFunc(l.rentals, settled)
	l.stale = true
}

// recent are those of the ended rentals that are still shown; never nil.
func recent(ended []rental.Status, now time.Time) []rental.Status {
	from := max(0, len(ended)-mostShown)
	shown := []rental.Status{}
	for _, s := range ended[from:] {
		if now.Sub(s.EndedAt) < endedShown {
			shown = append(shown, s)
		}
	}
	return shown
}
