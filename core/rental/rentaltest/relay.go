package rentaltest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/distributedcompute/host-agent/core/rental"
)

// Relay is a tunnel relay in memory. Its routes last as long as the process of an agent, so every
// agent needs a relay of its own.
type Relay struct {
	mu       sync.Mutex
	changed  chan struct{}
	obstacle string
	routes   map[rental.ID]published
	refusal  error
}

type published struct {
	routes  []rental.Route
	trouble func(string)
}

// NewRelay makes a relay that publishes whatever it is asked to.
func NewRelay() *Relay {
	return &Relay{changed: make(chan struct{}), routes: map[rental.ID]published{}}
}

// Obstruct puts a trouble in the way of all ports, and "" takes it away.
func (r *Relay) Obstruct(trouble string) {
	r.mu.Lock()
	r.obstacle = trouble
	close(r.changed)
	r.changed = make(chan struct{})
	told := slices.Collect(maps.Values(r.routes))
	r.mu.Unlock()
	for _, p := range told {
		p.trouble(trouble)
	}
}

// RefuseWithdrawal makes Withdraw return err until it is nil.
func (r *Relay) RefuseWithdrawal(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusal = err
}

// Routes returns what is published for a rental.
func (r *Relay) Routes(id rental.ID) []rental.Route {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.routes[id].routes
}

// Publish implements rental.Relay.
func (r *Relay) Publish(ctx context.Context, id rental.ID, routes []rental.Route, trouble func(string)) ([]rental.Address, error) {
	r.mu.Lock()
	r.routes[id] = published{slices.Clone(routes), trouble}
	r.mu.Unlock()
	for {
		r.mu.Lock()
		obstacle, changed := r.obstacle, r.changed
		r.mu.Unlock()
		if obstacle == "" && ctx.Err() == nil {
			break
		}
		trouble(obstacle)
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, rental.Failf(rental.CodeTunnelFailed, "The ports were not published in time. %s", obstacle)
		}
	}
	var addresses []rental.Address
	for _, route := range routes {
		addresses = append(addresses, rental.Address{Port: route.Port, Public: fmt.Sprintf("relay.example.com:%d", route.Port.Public)})
	}
	return addresses, nil
}

// Withdraw implements rental.Relay.
func (r *Relay) Withdraw(_ context.Context, id rental.ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refusal != nil {
		return r.refusal
	}
	delete(r.routes, id)
	return nil
}
