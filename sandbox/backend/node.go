package backend

import (
	"cmp"
	"slices"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// node is what is known of a host. Backend.mu guards it.
type node struct {
	id          string
	owner       Owner
	host        host     // the zero value where its key was made without enrolling
	expired     bool     // it has no good key
	session     *session // nil while not connected
	registered  bool     // on this connection
	connections int
	register    *protocol.Register
	heartbeat   *protocol.Heartbeat
	heartbeats  []time.Time
	status      *protocol.NodeStatus
}

// Node is a picture of a node. What it points to is not changed afterwards.
type Node struct {
	ID          string
	Owner       Owner
	Hostname    string // "" where its key was made without enrolling
	Connected   bool
	Registered  bool // on this connection
	Connections int  // so far
	Register    *protocol.Register
	Heartbeat   *protocol.Heartbeat // the latest
	Heartbeats  []time.Time         // when each came
	Status      *protocol.NodeStatus
}

func (n *node) picture() Node {
	return Node{
		ID:          n.id,
		Owner:       n.owner,
		Hostname:    n.host.Hostname,
		Connected:   n.session != nil,
		Registered:  n.registered,
		Connections: n.connections,
		Register:    n.register,
		Heartbeat:   n.heartbeat,
		Heartbeats:  slices.Clone(n.heartbeats),
		Status:      n.status,
	}
}

// Nodes are all that have ever connected with a key that is still good, sorted by id.
func (b *Backend) Nodes() []Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	var nodes []Node
	for _, n := range b.nodes {
		if n.connections > 0 && !n.expired {
			nodes = append(nodes, n.picture())
		}
	}
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	return nodes
}

// Node looks a node up.
func (b *Backend) Node(id string) (Node, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.byID(id); n != nil {
		return n.picture(), true
	}
	return Node{}, false
}

// byID needs mu held; nil for an id that is not known.
func (b *Backend) byID(id string) *node {
	for _, n := range b.nodes {
		if n.id == id && !n.expired {
			return n
		}
	}
	return nil
}

// Rental is what is known of a rental.
type Rental struct {
	ID      string
	Node    string
	Order   *protocol.StartInstance // nil where a node reported a rental that was not ordered here
	Refusal *protocol.Error         // why the node did not take the order
	History []Report                // in the order of their sequence numbers

	ordered time.Time
	began   Report // the first `running`; zero: none has come
	ended   Report // with a final status; zero: it has not
}

// Report is a status and when it came.
type Report struct {
	At     time.Time
	Status protocol.InstanceStatus
}

// Latest is the newest status, the zero value before the first.
func (r Rental) Latest() protocol.InstanceStatus {
	if len(r.History) == 0 {
		return protocol.InstanceStatus{}
	}
	return r.History[len(r.History)-1].Status
}

// note takes a status that is newer than all before; repeats change nothing. It reports whether the
// rental is now known to have begun, or ceased, to earn: an older status can say that too, since after
// a time without a connection register tells of the end before the rest follows.
func (r *Rental) note(at time.Time, status protocol.InstanceStatus) (turned bool) {
	report := Report{at, status}
	if status.State == "running" && (r.began.At.IsZero() || status.Sequence < r.began.Status.Sequence) {
		r.began, turned = report, true
	}
	if status.Final() && r.ended.At.IsZero() {
		r.ended, turned = report, true
	}
	if len(r.History) == 0 || status.Sequence > r.Latest().Sequence {
		r.History = append(r.History, report)
	}
	return turned && !r.began.At.IsZero() && r.price().IsPositive()
}

// rental finds or makes the entry of a rental; it needs mu held.
func (b *Backend) rental(id, node string) *Rental {
	if r, ok := b.rentals[id]; ok {
		return r
	}
	r := &Rental{ID: id, Node: node}
	b.rentals[id] = r
	b.order = append(b.order, id)
	return r
}

// Rentals are all rentals, in the order in which they were first heard of.
func (b *Backend) Rentals() []Rental {
	b.mu.Lock()
	defer b.mu.Unlock()
	rentals := make([]Rental, 0, len(b.order))
	for _, id := range b.order {
		rentals = append(rentals, b.rentals[id].picture())
	}
	return rentals
}

// Rental looks a rental up.
func (b *Backend) Rental(id string) (Rental, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.rentals[id]
	if !ok {
		return Rental{}, false
	}
	return r.picture(), true
}

func (r *Rental) picture() Rental {
	picture := *r
	picture.History = slices.Clone(r.History)
	return picture
}
