package backend

import (
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// receive records a frame and does what the contract asks for.
func (b *Backend) receive(s *session, frame []byte) {
	incoming, err := protocol.DecodeFromAgent(frame)
	if err != nil {
		b.record(Event{Kind: Garbled, Node: s.node.id, Problem: err.Error()})
		return
	}
	turned := b.note(s.node, incoming)
	if b.options.SeedOnly {
		return
	}
	switch m := incoming.Data.(type) {
	case *protocol.Register:
		b.welcome(s, incoming.ID)
	case *protocol.InstanceStatus:
		b.acknowledge(s, *m)
		if turned {
			b.earningsTurned(s.node)
		}
	case *protocol.CommandResult:
		s.answered(incoming.ID, *m)
	}
}

// note keeps what a message says. It reports whether an instance_status has changed what its node earns.
func (b *Backend) note(n *node, incoming protocol.Incoming) (turned bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := time.Now()
	switch m := incoming.Data.(type) {
	case *protocol.Register:
		n.register = m
		for _, instance := range m.Instances {
			b.hear(n, at, instance)
		}
	case *protocol.Heartbeat:
		n.heartbeats = append(n.heartbeats, at)
		n.heartbeat = m
	case *protocol.NodeStatus:
		n.status = m
	case *protocol.InstanceStatus:
		turned = b.hear(n, at, *m)
	}
	b.append(Event{At: at, Kind: Message, Node: n.id, ID: incoming.ID, Message: incoming.Data})
	return turned
}

// hear notes what a node says of a rental of its own; of another node's it has nothing to say. It needs mu held.
func (b *Backend) hear(n *node, at time.Time, status protocol.InstanceStatus) (turned bool) {
	r := b.rental(status.RentalID, n.id)
	if r.Node != n.id {
		b.append(Event{At: at, Kind: Garbled, Node: n.id, Problem: "rental " + r.ID + " is another node's"})
		return false
	}
	return r.note(at, status)
}

// welcome answers register. The node counts as registered once the answer is on its way.
func (b *Backend) welcome(s *session, id string) {
	s.telling.Lock()
	earnings := b.Earnings(s.node.id)
	err := s.send(id, protocol.Registered{
		NodeID:             s.node.id,
		HeartbeatIntervalS: b.options.HeartbeatIntervalS,
		Relay:              b.options.Relay,
		ServerTime:         time.Now().UTC(),
		Earnings:           &earnings,
	})
	s.telling.Unlock()
	if err != nil {
		b.options.Log.Warn("registration not answered", "node", s.node.id, "error", err)
		return
	}
	s.look()
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.node.session != s {
		return // another connection has taken its place
	}
	s.node.registered = true
	b.append(Event{Kind: Registered, Node: s.node.id})
}

// acknowledge tells the agent that a final status is safe here, so that it need not keep it.
func (b *Backend) acknowledge(s *session, status protocol.InstanceStatus) {
	b.mu.Lock()
	hold := b.holdReceipts
	b.mu.Unlock()
	if hold || !status.Final() {
		return
	}
	_ = s.send("", protocol.StatusReceived{RentalID: status.RentalID, Sequence: status.Sequence})
}

// HoldReceipts keeps the backend from confirming final statuses, as one does that loses its database.
func (b *Backend) HoldReceipts(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holdReceipts = on
}
