package agent

import (
	"cmp"
	"context"
	"net"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
)

// recall reads what the agent before this one remembered. A node that lost its memory serves its
// rentals, and takes new ones when its owner says so: he may have paused it.
func (l *loop) recall() {
	memory, err := l.parts.Memory.Load()
	l.memory = memory
	if err != nil {
		l.log.Error("reading what was remembered; starting without, paused", "error", err)
		l.memory.Owner = Wish{State: protocol.Paused, Reason: byUser}
		l.memory.Lapse = err.Error()
		l.remember()
	}
	l.memory.NodeID = cmp.Or(l.account.NodeID, l.memory.NodeID, l.options.NodeID)
}

// remember says that memory has changed, which costs a write; keep is what puts it on disk.
func (l *loop) remember() {
	l.changes++
	l.stale = true
}

// keep puts memory on disk, if it has changed, and answers then. Changes that come while a write is
// under way go with the next one, however many they are.
func (l *loop) keep(answer func(error)) {
	l.lanes.do("memory", func() job {
		if l.saved == l.changes {
			answer(nil)
			return nil
		}
		memory, changes := l.memory, l.changes
		return func(context.Context) func() {
			err := l.parts.Memory.Save(memory)
			return func() {
				if l.kept(changes, err); err != nil {
					err = forgettable(err)
				}
				answer(err)
			}
		}
	})
}

func (l *loop) kept(changes int, err error) {
	if err != nil {
		l.blocked(err)
		return
	}
	l.saved = changes
	if l.unwritable != "" {
		l.unwritable, l.stale = "", true
	}
}

// relayTerms are the owner's own, or else those the backend has given; nil while there are none.
func (l *loop) relayTerms() *rental.Terms {
	if l.options.Relay != nil {
		return l.options.Relay
	}
	if l.memory.Terms == nil {
		return nil
	}
	t := terms(l.memory.Terms)
	return &t
}

// useRelay takes the backend's word on the relay, unless the owner has his own.
func (l *loop) useRelay(r *protocol.Relay) {
	if r == nil || l.options.Relay != nil {
		return
	}
	if _, _, err := net.SplitHostPort(r.Address); err != nil {
		l.log.Warn("the backend names a relay that is no host:port", "address", shown(r.Address, 200))
		return
	}
	given := RememberedTerms{Address: r.Address, Token: r.Token.Reveal(), ServerName: r.ServerName, CAPEM: r.CAPEM}
	if l.memory.Terms == nil || *l.memory.Terms != given {
		l.memory.Terms = &given
		l.remember()
	}
	l.parts.Relay.Use(terms(&given))
}
