package tunnel

import (
	"net"
	"strconv"

	"github.com/distributedcompute/host-agent/core/rental"
)

// publication is what is published for one rental. Only the loop touches it, but for the fields
// that Publish may read after open is closed.
type publication struct {
	id      rental.ID
	routes  []*route
	trouble func(string)

	told     string          // the trouble that was told last
	unproven *rental.Failure // why a public address does not answer, though the relay has opened it

	open      chan struct{} // closed when all routes are open for the first time
	isOpen    bool
	addresses []rental.Address // where they answer; set before open is closed
}

// route is one port of a rental on its way through the relay.
type route struct {
	rental.Route
	slots   chan struct{}   // of the whole rental, taken by its TCP connections
	name    string          // on the relay, unique there; fixed once it is asked for
	asked   bool            // in this session, and not answered yet
	open    bool            // in this session
	refused *rental.Failure // the relay's last answer, nil if it was not a refusal
}

func newPublication(id rental.ID, routes []rental.Route, trouble func(string)) *publication {
	p := &publication{id: id, trouble: trouble, open: make(chan struct{})}
	slots := make(chan struct{}, mostConnections)
	for _, r := range routes {
		p.routes = append(p.routes, &route{Route: r, slots: slots})
	}
	return p
}

// allOpen reports whether the relay has opened every route.
func (p *publication) allOpen() bool {
	for _, route := range p.routes {
		if !route.open {
			return false
		}
	}
	return true
}

// tell passes a trouble on, once; nil says that it is gone.
func (p *publication) tell(trouble *rental.Failure) {
	sentence := ""
	if trouble != nil {
		sentence = trouble.Message
	}
	if sentence != p.told {
		p.told = sentence
		p.trouble(sentence)
	}
}

// settle closes p.open once all routes are open.
func (p *publication) settle(publicHost string) {
	if p.isOpen || !p.allOpen() {
		return
	}
	p.isOpen = true
	for _, route := range p.routes {
		public := net.JoinHostPort(publicHost, strconv.Itoa(int(route.Port.Public)))
		p.addresses = append(p.addresses, rental.Address{Port: route.Port, Public: public})
	}
	close(p.open)
}
