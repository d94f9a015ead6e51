// Package tunnel makes ports of rentals reachable from outside through an frp relay (frps).
//
// One loop, Run, owns everything: the terms of the relay, the routes that are wanted, and the one
// session with the relay that carries them all. Publish, Withdraw and Use hand it their wishes. A
// session that is lost is built up again within seconds, and every route with it; a route the
// relay refuses, because its port is taken, is asked for again every two seconds.
//
// The messages and the control cipher are those of the frp library. Its client is not used: it
// asks for a taken port again only after 30 s and for a lost relay after up to 20 s, keeps to
// itself why a login failed, verifies no certificate unless given a file of authorities, cannot be
// stopped without data races, and more than doubles what this package adds to the agent's memory.
package tunnel

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/distributedcompute/host-agent/core/rental"
)

// Options configure a Relay.
type Options struct {
	// Prefix begins the name of every route. A relay has one name space for all its clients, so
	// no two hosts may share a prefix. "": a random one.
	Prefix string
	// Dir keeps the id of the session, so that a restarted agent takes over from the session it
	// may have left behind. "": the id is forgotten with the process.
	Dir string
	Log *slog.Logger
}

// Relay is the connection to the tunnel relay. It implements rental.Relay; its methods may be
// called from several goroutines at once.
type Relay struct {
	prefix string
	dir    string
	log    *slog.Logger

	wishes chan func(*keeper) // carried out by Run, one after the other
	ended  chan struct{}      // closed when Run has returned
	info   atomic.Pointer[rental.RelayInfo]

	mu    sync.Mutex // guards terms
	terms *rental.Terms
	fresh chan struct{} // tick: terms were set
}

// New makes a Relay. It connects once Run is called and terms are known.
func New(o Options) *Relay {
	if o.Prefix == "" {
		o.Prefix = rand.Text()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Relay{
		prefix: o.Prefix,
		dir:    o.Dir,
		log:    o.Log,
		wishes: make(chan func(*keeper)),
		ended:  make(chan struct{}),
		fresh:  make(chan struct{}, 1),
	}
	r.info.Store(&rental.RelayInfo{})
	return r
}

// Use connects with these terms from now on, moving the published routes along; the same terms
// again change nothing. It never blocks. Addresses that Publish has returned, or is about to prove,
// keep the public host of the terms before: those of the new one are had by publishing again.
func (r *Relay) Use(terms rental.Terms) {
	r.mu.Lock()
	r.terms = &terms
	r.mu.Unlock()
	select {
	case r.fresh <- struct{}{}:
	default:
	}
}

func (r *Relay) latestTerms() rental.Terms {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *r.terms
}

// Info is the state of the connection.
func (r *Relay) Info() rental.RelayInfo { return *r.info.Load() }

// Publish implements rental.Relay. It waits for Run. trouble is called by Run, so it must return
// quickly, and must not call back.
func (r *Relay) Publish(ctx context.Context, id rental.ID, routes []rental.Route, trouble func(string)) ([]rental.Address, error) {
	p := newPublication(id, routes, trouble)
	if err := r.carryOut(ctx, func(k *keeper) { k.publish(p) }); err != nil {
		return nil, rental.Failf(rental.CodeTunnelFailed, "The tunnel was not opened: %v.", err)
	}
	select {
	case <-p.open:
	case <-ctx.Done():
		return nil, r.giveUp(ctx, p)
	case <-r.ended:
		return nil, r.giveUp(ctx, p)
	}
	for i, address := range p.addresses {
		if p.routes[i].Port.Protocol != rental.TCP {
			continue // no handshake could prove it; the relay's word has to do
		}
		if err := r.prove(ctx, p, address.Public); err != nil {
			return nil, r.giveUp(ctx, p)
		}
	}
	return p.addresses, nil
}

// Withdraw implements rental.Relay. When it returns nil, the relay has closed the ports; without a
// session with it, it has done so by itself. A relay that hangs is noticed within 40 s.
func (r *Relay) Withdraw(ctx context.Context, id rental.ID) error {
	var closed <-chan struct{}
	err := r.carryOut(ctx, func(k *keeper) { closed = k.withdraw(id) })
	if errors.Is(err, errEnded) {
		return nil
	}
	if err != nil {
		return rental.Failf(rental.CodeTunnelFailed, "The tunnel was not closed: %v.", err)
	}
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		return rental.Failf(rental.CodeTunnelFailed, "The relay has not confirmed that the tunnel is closed: %v.", context.Cause(ctx))
	}
}

// giveUp takes back a publication whose time is over and says what stood in its way.
func (r *Relay) giveUp(ctx context.Context, p *publication) error {
	var failure *rental.Failure
	err := r.carryOut(context.WithoutCancel(ctx), func(k *keeper) {
		failure = k.obstacle(p)
		k.forget(p)
	})
	if err != nil {
		return rental.Failf(rental.CodeTunnelFailed, "The tunnel was not opened: %v.", err)
	}
	return failure
}

var errEnded = errors.New("the agent is leaving")

// carryOut has the loop call f, and returns when it has.
func (r *Relay) carryOut(ctx context.Context, f func(*keeper)) error {
	done := make(chan struct{})
	wish := func(k *keeper) { defer close(done); f(k) }
	select {
	case r.wishes <- wish:
		<-done
		return nil
	case <-r.ended:
		return errEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
