package backend

import (
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
	rentals map[string]*line
	turn    []string // rentals with something to send, the next first
}

// line is what has to be said about one rental.
type line struct {
	queue []protocol.InstanceStatus // unsent, oldest first; a final status is the last
	final *protocol.InstanceStatus  // sent or not, until it has been confirmed
	since time.Time                 // of final
}

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

// postNode queues a node status; only the latest matters.
func (o *outbox) postNode(status protocol.NodeStatus) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.node = &status
	tick(o.ready)
}

// forgetNode takes the node status back, because a register is about to say it anew.
func (o *outbox) forgetNode() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.node = nil
}

// postInstance queues a status of a rental behind those before it.
func (o *outbox) postInstance(status protocol.InstanceStatus) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.rentals[status.RentalID]
	if l == nil {
		l = &line{}
		o.rentals[status.RentalID] = l
	}
	if status.Final() {
		if l.final != nil && l.final.Sequence == status.Sequence {
			return // known: it is sent until it has been confirmed
		}
		l.final, l.since = &status, time.Now()
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
	o.line(status.RentalID)
}

// supersedes reports whether next says all that last said: the same status again, or more progress
// in the same state.
func supersedes(next, last protocol.InstanceStatus) bool {
	return next.Sequence == last.Sequence ||
		next.State == last.State && next.Progress != nil && last.Progress != nil
}

// line gives a rental a turn, if it has none.
func (o *outbox) line(rental string) {
	if !slices.Contains(o.turn, rental) {
		o.turn = append(o.turn, rental)
	}
	tick(o.ready)
}

// settle forgets a final status that the backend has recorded.
func (o *outbox) settle(rental string, sequence int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l := o.rentals[rental]; l != nil && l.final != nil && l.final.Sequence <= sequence {
		o.drop(rental)
	}
}

func (o *outbox) drop(rental string) {
	delete(o.rentals, rental)
	o.turn = slices.DeleteFunc(o.turn, func(name string) bool { return name == rental })
}

// reconnected begins the connection of that number: it forgets the answers that the last one has not
// taken, which are for nobody now, and queues again the final statuses that nobody has confirmed.
func (o *outbox) reconnected(number uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.number, o.answers, o.bytes = number, nil, 0
	o.expire()
	for rental, l := range o.rentals {
		if l.final != nil && (len(l.queue) == 0 || !l.queue[len(l.queue)-1].Final()) {
			l.queue = append(l.queue, *l.final)
			o.line(rental)
		}
	}
	tick(o.ready)
}

// expire gives up final statuses that nobody has confirmed for too long. It is done at each new one,
// too: a connection to a backend that confirms none may last for ever.
func (o *outbox) expire() {
	for rental, l := range o.rentals {
		if l.final != nil && time.Since(l.since) > o.keep {
			o.drop(rental)
		}
	}
}

// take removes the next thing to send: answers first, then the node, then the rentals in turn.
func (o *outbox) take() (p parcel, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case len(o.answers) > 0:
		p.frame = o.answers[0]
		o.answers, o.bytes = slices.Delete(o.answers, 0, 1), o.bytes-len(p.frame)
		tick(o.room)
	case o.node != nil:
		p.message, o.node = *o.node, nil
	case len(o.turn) > 0:
		p.message = o.next()
	default:
		return parcel{}, false
	}
	if o.some() {
		tick(o.ready)
	}
	return p, true
}

func (o *outbox) some() bool { return len(o.answers) > 0 || len(o.turn) > 0 || o.node != nil }

// empty reports whether there is nothing to send.
func (o *outbox) empty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.some()
}

// next is the oldest status of the rental whose turn it is.
func (o *outbox) next() protocol.InstanceStatus {
	rental := o.turn[0]
	o.turn = o.turn[1:]
	l := o.rentals[rental]
	status := l.queue[0]
	l.queue = slices.Delete(l.queue, 0, 1)
	switch {
	case len(l.queue) > 0:
		o.turn = append(o.turn, rental)
	case l.final == nil:
		delete(o.rentals, rental)
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
		l := o.rentals[message.RentalID]
		if l == nil {
			l = &line{}
			o.rentals[message.RentalID] = l
		}
		l.queue = slices.Insert(l.queue, 0, message)
		o.line(message.RentalID)
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
