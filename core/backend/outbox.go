package backend

import (
	"container/list"
	"slices"
	"sync"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

const (
	maxAnswers     = 1024
	maxAnswerBytes = 4 << 20
	crowdedAnswers = 256
	crowdedBytes   = 1 << 20
	maxPerRental   = 64
)

// outbox is what has to be said to the backend, connected or not. Adding never waits; what is
// unsent is bounded.
type outbox struct {
	ready chan struct{} // capacity 1: there is something to send
	room  chan struct{} // capacity 1: answers have left
	keep  time.Duration // of a final status nobody confirms

	mu      sync.Mutex
	number  uint64 // of the present connection
	answers [][]byte
	bytes   int // of answers
	node    *protocol.NodeStatus
	before  []*line // whose final statuses were queued before node, and go first
	rentals map[string]*line
	turns   list.List // the lines with something to send, the next first
	ends    list.List // the lines with a final status, the oldest first
}

// line is what has to be said about one rental.
type line struct {
	rental string
	queue  []protocol.InstanceStatus // unsent, oldest first; a final status is the last
	final  *protocol.InstanceStatus  // sent or not, until it has been confirmed
	since  time.Time                 // of final
	turn   *list.Element             // in turns; nil: queue is empty
	end    *list.Element             // in ends; nil: there is no final
}

// ending reports whether a final status is unsent.
func (l *line) ending() bool { return len(l.queue) > 0 && l.queue[len(l.queue)-1].Final() }

// parcel is one thing to send: a finished frame, or a message.
type parcel struct {
	frame   []byte
	message protocol.Message
}

func newOutbox(keep time.Duration) *outbox {
	return &outbox{
		ready:   make(chan struct{}, 1),
		room:    make(chan struct{}, 1),
		keep:    keep,
		rentals: map[string]*line{},
	}
}

// answer queues a finished answer to a command that came over a connection; there is nobody to take it
// once that is not the present one. The oldest goes when there are too many, which hardly happens:
// reading stops first. dropped is how many went.
func (o *outbox) answer(connection uint64, frame []byte) (dropped int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if connection != o.number {
		return 0
	}
	o.answers = append(o.answers, frame)
	o.bytes += len(frame)
	for len(o.answers) > maxAnswers || o.bytes > maxAnswerBytes {
		o.bytes -= len(o.answers[0])
		o.answers = slices.Delete(o.answers, 0, 1)
		dropped++
	}
	tick(o.ready)
	return dropped
}

// crowded reports whether so many answers wait that no further command should be read.
func (o *outbox) crowded() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.answers) >= crowdedAnswers || o.bytes >= crowdedBytes
}

// postNode queues a node status; only the latest matters. It waits for the final statuses before it: a
// node that paused because its last rental has ended must not seem to have paused under it.
func (o *outbox) postNode(status protocol.NodeStatus) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.node, o.before = &status, nil
	for turn := o.turns.Front(); turn != nil; turn = turn.Next() {
		if l := turn.Value.(*line); l.ending() {
			o.before = append(o.before, l)
		}
	}
	tick(o.ready)
}

// introduced takes back a node status that a register makes stale or needless. One that says the same of a node that
// is not online stays, since it says why, and until when.
func (o *outbox) introduced(status protocol.NodeState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.node != nil && (o.node.Status != status || status == protocol.Online) {
		o.node, o.before = nil, nil
	}
}

// postInstance queues a status of a rental behind those before it.
func (o *outbox) postInstance(status protocol.InstanceStatus) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.line(status.RentalID)
	if status.Final() {
		if l.final != nil && l.final.Sequence == status.Sequence {
			return // known: it is sent until it has been confirmed
		}
		if l.end != nil {
			o.ends.Remove(l.end)
		}
		l.final, l.since, l.end = &status, time.Now(), o.ends.PushBack(l)
		o.expire()
	}
	if last := len(l.queue) - 1; last >= 0 && supersedes(status, l.queue[last]) {
		l.queue[last] = status
	} else {
		l.queue = append(l.queue, status)
	}
	if len(l.queue) > maxPerRental {
		l.queue = slices.Delete(l.queue, 0, 1)
	}
	o.queued(l)
}

// supersedes reports whether next says all that last said: the same status again, or more progress
// in the same state.
func supersedes(next, last protocol.InstanceStatus) bool {
	return next.Sequence == last.Sequence ||
		next.State == last.State && next.Progress != nil && last.Progress != nil
}

// line is that of a rental, a new one if need be.
func (o *outbox) line(rental string) *line {
	l := o.rentals[rental]
	if l == nil {
		l = &line{rental: rental}
		o.rentals[rental] = l
	}
	return l
}

// queued gives a line that has something to send its turn.
func (o *outbox) queued(l *line) {
	if l.turn == nil {
		l.turn = o.turns.PushBack(l)
	}
	tick(o.ready)
}

// settle forgets a final status that the backend has recorded.
func (o *outbox) settle(rental string, sequence int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l := o.rentals[rental]; l != nil && l.final != nil && l.final.Sequence == sequence {
		o.drop(l)
	}
}

// drop forgets a line that has come to its end.
func (o *outbox) drop(l *line) {
	delete(o.rentals, l.rental)
	o.ends.Remove(l.end)
	if l.turn != nil {
		o.turns.Remove(l.turn)
	}
	l.queue, l.turn = nil, nil
}

// reconnected begins the connection of that number: it forgets the answers that the last one has not
// taken, which are for nobody now, and queues again the final statuses that nobody has confirmed.
func (o *outbox) reconnected(number uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.number, o.answers, o.bytes = number, nil, 0
	o.expire()
	for end := o.ends.Front(); end != nil; end = end.Next() {
		if l := end.Value.(*line); !l.ending() {
			l.queue = append(l.queue, *l.final)
			o.queued(l)
		}
	}
	tick(o.ready)
}

// expire gives up final statuses that nobody has confirmed for too long. It is done at each new one,
// too: a connection to a backend that confirms none may last for ever.
func (o *outbox) expire() {
	for end := o.ends.Front(); end != nil; end = o.ends.Front() {
		l := end.Value.(*line)
		if time.Since(l.since) <= o.keep {
			return
		}
		o.drop(l)
	}
}

// take removes the next thing to send: answers first, then the node, then the rentals in turn. Only the
// final statuses that were queued before the node's go before it.
func (o *outbox) take() (p parcel, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case len(o.answers) > 0:
		p.frame = o.answers[0]
		o.answers, o.bytes = slices.Delete(o.answers, 0, 1), o.bytes-len(p.frame)
		tick(o.room)
	case o.node != nil && !o.ending():
		p.message, o.node = *o.node, nil
	case o.turns.Len() > 0:
		p.message = o.next()
	default:
		return parcel{}, false
	}
	if o.some() {
		tick(o.ready)
	}
	return p, true
}

// ending reports whether a final status from before the node's is unsent.
func (o *outbox) ending() bool {
	for len(o.before) > 0 && !o.before[0].ending() {
		o.before = o.before[1:]
	}
	return len(o.before) > 0
}

func (o *outbox) some() bool { return len(o.answers) > 0 || o.turns.Len() > 0 || o.node != nil }

// empty reports whether there is nothing to send.
func (o *outbox) empty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.some()
}

// next is the oldest status of the rental whose turn it is.
func (o *outbox) next() protocol.InstanceStatus {
	l := o.turns.Front().Value.(*line)
	status := l.queue[0]
	l.queue = slices.Delete(l.queue, 0, 1)
	if len(l.queue) > 0 {
		o.turns.MoveToBack(l.turn)
		return status
	}
	o.turns.Remove(l.turn)
	l.turn = nil
	if l.final == nil {
		delete(o.rentals, l.rental)
	}
	return status
}

// putBack queues in front what could not be sent.
func (o *outbox) putBack(p parcel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch message := p.message.(type) {
	case nil:
		o.answers = slices.Insert(o.answers, 0, p.frame)
		o.bytes += len(p.frame)
	case protocol.NodeStatus:
		if o.node == nil {
			o.node = &message
		}
	case protocol.InstanceStatus:
		l := o.line(message.RentalID)
		l.queue = slices.Insert(l.queue, 0, message)
		o.queued(l)
	}
	tick(o.ready)
}

// untick forgets what tick said.
func untick(c <-chan struct{}) {
	select {
	case <-c:
	default:
	}
}

// tick says "look again" without waiting; the channel's capacity is exactly one.
func tick(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
