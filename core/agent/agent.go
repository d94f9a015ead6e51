package agent

import (
	"context"
	"errors"
	"os"
	"sync/atomic"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/rental"
)

// Agent is the agent of one host.
type Agent struct {
	parts   Parts
	options Options
	mail    *mailbox
	board   *board
	ready   chan struct{} // closed once there is something to register with
	gone    chan struct{} // closed when Run has returned
	running atomic.Bool
}

// New joins an agent from its parts. It starts nothing.
func New(parts Parts, options Options) (*Agent, error) {
	options, err := options.withDefaults()
	if err = errors.Join(parts.check(), err); err != nil {
		return nil, err
	}
	if parts.Account == nil {
		parts.Account = noAccount{options.KeySource}
	}
	if parts.Audit == nil {
		parts.Audit = noAudit{}
	}
	if parts.GPUs == nil {
		parts.GPUs = noDesk{}
	}
	standing := parts.Account.Info()
	a := &Agent{
		parts:   parts,
		options: options,
		mail:    newMailbox(),
		board:   &board{watchers: map[chan struct{}]struct{}{}},
		ready:   make(chan struct{}),
		gone:    make(chan struct{}),
	}
	a.board.publish(&Status{
		Agent:     options.Agent,
		PID:       os.Getpid(),
		NodeID:    options.NodeID,
		KeySource: standing.KeySource,
		Account:   standing,
		Node:      Wish{State: protocol.Online},
		Offer:     offerOf(nil, rental.EngineInfo{}, options.Offer),
	})
	return a, nil
}

// Run does the work of the host until [Agent.Quit] or the end of ctx, which leaves the rentals
// running for the next agent. It starts all parts and has ended them, each within a bound, when it
// returns. An error says what could not go on, or would not end. Run may be called once.
func (a *Agent) Run(ctx context.Context) error {
	if a.running.Swap(true) {
		return errors.New("running the agent: it has been run before")
	}
	defer close(a.gone)
	l := newLoop(a)
	crew := l.startCrew(ctx)
	l.run(ctx)
	return l.leave(crew)
}

// register is what the link says first on a connection. It waits a moment for the first look at
// the machine, while the connection is being made, and not at all later.
func (a *Agent) register() protocol.Register {
	<-a.ready
	return registration(a.board.latest.Load())
}

// heartbeat is asked for by the link, on its own goroutine.
func (a *Agent) heartbeat() protocol.Heartbeat {
	return beat(a.board.latest.Load(), a.parts.Meter.Sample())
}
