package tunnel

import (
	"fmt"
	"time"

	"github.com/fatedier/frp/pkg/msg"

	"github.com/distributedcompute/host-agent/core/rental"
)

// retryRoute is how soon a route that the relay refused is asked for again.
const retryRoute = 2 * time.Second

// publish takes up a publication in place of the one for the same rental.
func (k *keeper) publish(p *publication) {
	k.withdraw(p.id)
	k.published[p.id] = p
	for _, route := range p.routes {
		// The number sets a route apart from its predecessor, whose answers may still be on the way.
		k.named++
		route.name = fmt.Sprintf("%s.%s.%d-%s.%d", k.relay.prefix, p.id, route.Port.Container, route.Port.Protocol, k.named)
		k.routes[route.name] = route
		k.ask(route)
	}
}

// ask asks the relay for a route. Asked twice at once it would refuse the second time.
func (k *keeper) ask(r *route) {
	if k.session != nil && !r.asked {
		r.asked = true
		k.session.register(r)
	}
}

// withdraw closes the routes of a rental. The channel is closed once the relay has done it.
func (k *keeper) withdraw(id rental.ID) <-chan struct{} {
	closed := make(chan struct{})
	p := k.published[id]
	if p == nil {
		close(closed)
		return closed
	}
	delete(k.published, id)
	for _, route := range p.routes {
		delete(k.routes, route.name)
		if k.session != nil {
			k.session.unregister(route)
		}
	}
	if k.session == nil {
		close(closed)
		return closed
	}
	k.waiting = append(k.waiting, waiter{k.ping(), closed})
	return closed
}

// forget withdraws a publication unless another has taken its place.
func (k *keeper) forget(p *publication) {
	if k.published[p.id] == p {
		k.withdraw(p.id)
	}
}

// answered takes the relay's answer to the wish for a route.
func (k *keeper) answered(m *msg.NewProxyResp) {
	route := k.routes[m.ProxyName]
	if route == nil {
		return // withdrawn in the meantime
	}
	route.asked, route.open, route.refused = false, m.Error == "", nil
	if route.open {
		return
	}
	route.refused = refusedRoute(route.Port, m.Error, k.terms.Address)
	k.retry.Reset(retryRoute)
}

// askAgain asks for the refused routes once more.
func (k *keeper) askAgain() {
	for _, route := range k.routes {
		if route.refused != nil {
			k.ask(route)
		}
	}
}

// trouble is what is known to stand between a publication and its renter, nil if nothing is.
func (k *keeper) trouble(p *publication) *rental.Failure {
	if len(p.routes) == 0 {
		return nil
	}
	if k.problem != "" {
		return &rental.Failure{Code: rental.CodeTunnelFailed, Message: k.problem}
	}
	for _, route := range p.routes {
		if route.refused != nil {
			return route.refused
		}
	}
	return p.unproven
}

// obstacle is trouble, or else what a publication that is not open is waiting for.
func (k *keeper) obstacle(p *publication) *rental.Failure {
	if trouble := k.trouble(p); trouble != nil {
		return trouble
	}
	if k.terms.Address == "" {
		return rental.Failf(rental.CodeTunnelFailed, "The backend has not named a relay yet.")
	}
	return rental.Failf(rental.CodeTunnelFailed, "The relay %s has not opened the ports yet.", k.terms.Address)
}

// review brings everyone up to date after something has happened.
func (k *keeper) review() {
	open := 0
	for _, route := range k.routes {
		if route.open {
			open++
		}
	}
	info := rental.RelayInfo{Address: k.terms.Address, Connected: k.session != nil, Problem: k.problem, Routes: open}
	if k.session != nil {
		info.Since = k.since
	}
	if info != k.relay.Info() {
		k.relay.info.Store(&info)
		k.changed()
	}
	for _, p := range k.published {
		p.settle(publicHost(k.terms))
		trouble := k.trouble(p)
		if trouble != nil || p.allOpen() { // what is still to be opened is no all-clear
			p.tell(trouble)
		}
	}
}
