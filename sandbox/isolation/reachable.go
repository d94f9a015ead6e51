//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/sandbox/market"
)

// shieldWithin is how soon a shield that was taken away has to be back, or its rentals cut off.
const shieldWithin = 30 * time.Second

// tenant is a rental on the network.
type tenant struct {
	id        string // of the rental
	container string // id
	address   string // of the container
	gateway   string
	published string // where the engine publishes port 8080 on the host's loopback, host:port; "" where it does not
}

// neighbours are two rentals and the network that they must not reach.
type neighbours struct {
	*place
	one, two tenant
}

// reachable lets a rental try all of the host's network, the host, and another rental, and a neighbour on the network try the
// rental: with the shield, without it, and after what takes it away. short leaves out the restart of the engine, and does not
// try all of it once more after the agent is back: that what was reached is not reached any more shows the shield's return.
func (p *place) reachable(ctx context.Context, short bool) (v verdict, err error) {
	v = verdict{name: "reachable"}
	n := &neighbours{place: p}
	if err := n.settle(ctx); err != nil {
		return v, err
	}
	for _, step := range []struct {
		name string
		skip bool
		do   func(context.Context, *verdict) error
	}{
		{"from the first moment on", false, n.firstMoment},
		{"with the shield", false, n.shielded},
		{"without the shield", false, n.bare},
		{"after the agent is back", false, func(ctx context.Context, v *verdict) error { return n.agentBack(ctx, v, short) }},
		{"after the rules are flushed", false, n.flushed},
		{"after the engine is back", short, n.engineBack},
	} {
		if step.skip {
			continue
		}
		if err := step.do(ctx, &v); err != nil {
			return v, fmt.Errorf("%s: %w", step.name, err)
		}
		v.note("%s: %s so far", step.name, v)
	}
	if short { // the rules of the engine's own are gone, too
		if err := p.engine.Restart(ctx); err != nil {
			return v, err
		}
	}
	return v, errors.Join(p.end(ctx, n.one.id), p.end(ctx, n.two.id))
}

// settle rents twice. The first rental tries to reach the network from its first moment on.
func (n *neighbours) settle(ctx context.Context) (err error) {
	if n.one, err = n.tenant(ctx, "tenant-1", "-nag", fmt.Sprintf("tcp:%s:%d,tcp:%s:%d", nagged, echoPort, internet, echoPort)); err != nil {
		return err
	}
	n.two, err = n.tenant(ctx, "tenant-2")
	return err
}

func (n *neighbours) tenant(ctx context.Context, id string, command ...string) (tenant, error) {
	_, running, err := n.rent(ctx, market.Rent{ID: id, Command: command, CPUs: 0.2, RAMBytes: 96 << 20, DiskBytes: 64 << 20, Ports: []string{"8080", "9090/udp"}})
	if err != nil {
		return tenant{}, err
	}
	there, err := n.docker.inspect(ctx, running.ContainerID)
	if err != nil {
		return tenant{}, err
	}
	published := ""
	for _, binding := range there.NetworkSettings.Ports["8080/tcp"] {
		published = "127.0.0.1:" + binding.HostPort
	}
	for _, net := range there.NetworkSettings.Networks {
		return tenant{id, running.ContainerID, net.IPAddress, net.Gateway, published}, nil
	}
	return tenant{}, fmt.Errorf("rental %s is on no network", id)
}

// outward are what the first rental tries to reach. guarded are those that nothing but the shield keeps from it; the others the
// engine keeps from it as well, and have to be there all the same.
func (n *neighbours) outward() (guarded, others []string, err error) {
	hosts := append([]string{hostOnLAN, hostOutside, neighbour, n.one.gateway, n.two.gateway, "172.17.0.1"}, elsewhere...)
	for _, host := range hosts {
		guarded = append(guarded, fmt.Sprintf("tcp:%s:%d", host, echoPort), fmt.Sprintf("udp:%s:%d", host, echoPort), "icmp:"+host)
	}
	others = []string{
		fmt.Sprintf("tcp:%s:8080", n.two.address), fmt.Sprintf("udp:%s:9090", n.two.address), "icmp:" + n.two.address,
	}
	if port, ok := strings.CutPrefix(n.two.published, "127.0.0.1:"); ok {
		others = append(others, "tcp:"+n.one.gateway+":"+port, "tcp:"+hostOnLAN+":"+port)
	}
	for _, host := range []string{hostOnLAN6, neighbour6} {
		others = append(others, fmt.Sprintf("tcp:[%s]:%d", host, echoPort), fmt.Sprintf("udp:[%s]:%d", host, echoPort), "icmp:"+host)
	}
	for _, at := range []struct{ namespace, device string }{{"", "lan0"}, {neighbourNS, "eth0"}} {
		local, err := linkLocal(at.namespace, at.device)
		if err != nil {
			return nil, nil, fmt.Errorf("looking for link-local addresses: %w", err)
		}
		others = append(others, fmt.Sprintf("tcp:[%s%%eth0]:%d", local, echoPort))
	}
	return guarded, others, nil
}

// tryOut has the first rental try targets.
func (n *neighbours) tryOut(ctx context.Context, targets []string) (map[string]string, error) {
	answers := map[string]string{}
	// Straight to the container: the agent, which leads renters there, is not always up.
	err := n.pageAt(ctx, n.one.address+":8080", "/reach?"+url.Values{"to": targets}.Encode(), &answers)
	if err != nil {
		return nil, n.withLogs(ctx, n.one.id, err)
	}
	return answers, nil
}

// inward are what the neighbour tries to reach of the first rental; nothing but the shield keeps them from it.
func (n *neighbours) inward() []string {
	targets := []string{n.one.address + ":8080", n.two.address + ":8080"}
	if n.one.published != "" {
		targets = append(targets, n.one.published)
	}
	return targets
}

// tryIn has the neighbour try them, and tells which it has reached.
func (n *neighbours) tryIn(targets []string) ([]string, error) {
	var reached []string
	err := inNamespace(neighbourNS, func() error {
		for _, target := range targets {
			// A request: something of the host's own could listen there as well.
			conn, err := net.DialTimeout("tcp", target, time.Second)
			if err != nil {
				continue
			}
			_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
			fmt.Fprint(conn, "GET /json HTTP/1.0\r\n\r\n")
			answer := make([]byte, 12)
			if _, err := conn.Read(answer); err == nil && strings.HasPrefix(string(answer), "HTTP/1.0 200") {
				reached = append(reached, target)
			}
			conn.Close()
		}
		return nil
	})
	return reached, err
}

// shielded requires that nothing is reached but the internet.
func (n *neighbours) shielded(ctx context.Context, v *verdict) error {
	guarded, others, err := n.outward()
	if err != nil {
		return err
	}
	answers, err := n.tryOut(ctx, append(guarded, others...))
	if err != nil {
		return err
	}
	for _, target := range slices.Sorted(maps.Keys(answers)) {
		v.of++
		if answers[target] == "reached" {
			v.got++
			v.fail("the rental reaches %s", target)
		}
	}
	inward := n.inward()
	reached, err := n.tryIn(inward)
	if err != nil {
		return err
	}
	v.of += len(inward)
	v.got += len(reached)
	for _, target := range reached {
		v.fail("the neighbour reaches the rental at %s", target)
	}
	return nil
}

// online requires that the internet is reached.
func (n *neighbours) online(ctx context.Context, v *verdict) error {
	outside := []string{fmt.Sprintf("tcp:%s:%d", internet, echoPort), fmt.Sprintf("udp:%s:%d", internet, echoPort), "icmp:" + internet}
	answers, err := n.tryOut(ctx, outside)
	if err != nil {
		return err
	}
	for _, target := range outside {
		if answers[target] != "reached" {
			v.fail("the internet is not reached at %s: %s", target, answers[target])
		}
	}
	return nil
}

// firstMoment requires that the rental has tried in vain from its first instruction on.
func (n *neighbours) firstMoment(ctx context.Context, v *verdict) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for n.lan.connections(internet) < 5 {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return n.withLogs(ctx, n.one.id, errors.New("the rental does not reach the internet"))
		}
	}
	n.noneCame(v, "before the shield was tried otherwise")
	return n.online(ctx, v)
}

// noneCame requires that the rental has not got through to what it tries all the time.
func (n *neighbours) noneCame(v *verdict, when string) {
	v.of++
	if came := n.lan.connections(nagged); came > 0 {
		v.got++
		v.fail("%s the rental got through to the network %d times", when, came)
	}
}

// bare shows that all of it can be reached where there is no shield, and that the rest is there.
func (n *neighbours) bare(ctx context.Context, v *verdict) error {
	n.stopAgent()
	if err := system(ctx, "nft", "delete", "table", "inet", "distributedcompute_shield"); err != nil {
		v.fail("there was no shield to take away: %v", err)
	}
	// A host that forwards whatever comes, as routers and many others do: the engine's own rules would let nobody in.
	if err := system(ctx, "iptables", "-P", "FORWARD", "ACCEPT"); err != nil {
		return err
	}
	guarded, _, err := n.outward()
	if err != nil {
		return err
	}
	answers, err := n.tryOut(ctx, guarded)
	if err != nil {
		return err
	}
	reached := 0
	for _, target := range guarded {
		if answers[target] == "reached" {
			reached++
		} else {
			v.fail("without the shield %s is not reached either, so it proves nothing: %s", target, answers[target])
		}
	}
	inward := n.inward()
	got, err := n.tryIn(inward)
	if err != nil {
		return err
	}
	for _, target := range inward {
		if !slices.Contains(got, target) {
			v.fail("without the shield the neighbour does not reach %s either, so it proves nothing", target)
		}
	}
	for _, target := range []string{n.two.address + ":8080", fmt.Sprintf("[%s]:%d", hostOnLAN6, echoPort), fmt.Sprintf("[%s]:%d", neighbour6, echoPort)} {
		if conn, err := net.DialTimeout("tcp", target, reachTimeout); err != nil {
			v.fail("the host does not reach %s either, so it proves nothing: %v", target, err)
		} else {
			conn.Close()
		}
	}
	v.note("without the shield %d of %d are reached, and the neighbour reaches %d of %d", reached, len(guarded), len(got), len(inward))
	return nil
}

const reachTimeout = 5 * time.Second

// agentBack starts the agent again, which has to put the shield up before it goes on with what runs.
func (n *neighbours) agentBack(ctx context.Context, v *verdict, short bool) error {
	if err := n.startAgent(ctx); err != nil {
		return err
	}
	began := time.Now()
	if err := n.blockedAgain(ctx, v); err != nil {
		return err
	}
	v.note("the shield is up %s after the agent takes rentals", time.Since(began).Round(time.Millisecond))
	if short {
		return nil
	}
	return n.shielded(ctx, v)
}

// flushed takes all rules of the host away.
func (n *neighbours) flushed(ctx context.Context, v *verdict) error {
	if err := system(ctx, "nft", "flush", "ruleset"); err != nil {
		return err
	}
	began := time.Now()
	if err := n.blockedAgain(ctx, v); err != nil {
		return err
	}
	took := time.Since(began)
	v.note("after a flush of all rules the shield is back within %s", took.Round(10*time.Millisecond))
	v.of++
	if took > shieldWithin {
		v.got++
		v.fail("the shield came back after %s, not within %s", took, shieldWithin)
	}
	return n.shielded(ctx, v)
}

// blockedAgain waits until the rental is kept off the network, or is no more.
func (n *neighbours) blockedAgain(ctx context.Context, v *verdict) error {
	ctx, cancel := context.WithTimeout(ctx, 2*shieldWithin)
	defer cancel()
	target := fmt.Sprintf("tcp:%s:%d", neighbour, echoPort)
	for {
		answers, err := n.tryOut(ctx, []string{target})
		there, lost := n.docker.inspect(ctx, n.one.container)
		switch {
		case lost == nil && !there.State.Running:
			v.note("the rental was cut off")
			return nil
		case err == nil && answers[target] != "reached":
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waiting for the shield: %w%s", ctx.Err(), n.lastWords())
		}
	}
}

// engineBack restarts the engine. What runs in it runs on, and must not get through at any moment.
func (n *neighbours) engineBack(ctx context.Context, v *verdict) error {
	before := n.lan.connections(nagged)
	if err := n.engine.Restart(ctx); err != nil {
		return err
	}
	if err := n.quiet(ctx, calm); err != nil {
		return err
	}
	v.of++
	if came := n.lan.connections(nagged) - before; came > 0 {
		v.got++
		v.fail("while the engine was restarted the rental got through to the network %d times", came)
	}
	if err := n.online(ctx, v); err != nil {
		return err
	}
	return n.shielded(ctx, v)
}
