//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/backend"
	"github.com/distributedcompute/host-agent/sandbox/market"
	"github.com/distributedcompute/host-agent/sandbox/workload"
)

// calm is how long the agent has to have left the engine alone before and after the orders.
const calm = 2 * time.Second

// refused sends orders that a host must not carry out over the real link. Each has to be refused with its own code and a
// message that names the field, and none may make the agent ask the engine for anything that could change something.
func (p *place) refused(ctx context.Context) (verdict, error) {
	v := verdict{name: "refused"}
	mark := p.tap.Mark()
	order, running, err := p.rent(ctx, market.Rent{ID: "live", GPUs: []int{0}, CPUs: 0.1, RAMBytes: 64 << 20, DiskBytes: 32 << 20, Ports: []string{"8080"}})
	if err != nil {
		return v, err
	}
	if len(p.tap.Mutating(mark)) == 0 {
		return v, fmt.Errorf("the recorder has seen nothing of the order that was carried out")
	}
	live, err := fieldsOf(order)
	if err != nil {
		return v, err
	}
	good, err := p.goodOrder()
	if err != nil {
		return v, err
	}
	program, err := os.ReadFile(p.guest)
	if err != nil {
		return v, err
	}
	forbidden, err := workload.Pack(program)
	if err != nil {
		return v, err
	}
	if _, err := p.Registry.Push(ctx, forbiddenImage, forbidden); err != nil {
		return v, err
	}
	variants, err := hostile(good, live, int(order.PortMapping[protocol.PortKey{Port: 8080, Protocol: "tcp"}]))
	if err != nil {
		return v, err
	}
	if err := p.quiet(ctx, calm); err != nil {
		return v, err
	}
	mark = p.tap.Mark()
	for _, tried := range append(variants, crooked()...) {
		p.judge(ctx, &v, tried.what, "start_instance", tried.data, tried.code, tried.names)
	}
	for _, event := range foreign() {
		p.judge(ctx, &v, "event "+event, event, json.RawMessage(`{}`), protocol.UnknownEvent, "event")
	}
	if err := p.drained(ctx, &v, good); err != nil {
		return v, err
	}
	p.unread(ctx, &v)
	if err := p.broken(ctx, &v); err != nil {
		return v, err
	}
	if err := p.quiet(ctx, calm); err != nil {
		return v, err
	}
	for _, call := range p.tap.Mutating(mark) {
		v.fail("the engine was asked: %s", call)
	}
	if now, err := p.docker.inspect(ctx, running.ContainerID); err != nil || !now.State.Running {
		v.fail("the rental that ran does not run any more: %v", err)
	}
	v.want = v.of
	return v, p.end(ctx, "live")
}

// goodOrder is one that would be carried out.
func (p *place) goodOrder() (map[string]any, error) {
	ports, err := p.Backend.PublicPorts(protocol.PortKey{Port: 8080, Protocol: "tcp"})
	if err != nil {
		return nil, err
	}
	return fieldsOf(protocol.StartInstance{
		Image: p.Image, RAMLimit: 64 << 20, CPUCores: 0.1, DiskLimit: 32 << 20, ShmSize: 8 << 20, PortMapping: ports, PricePerHour: "0.10",
		Command: []string{"-http", ":8080"}, EnvVars: map[string]string{"GREETING": "hello"},
	})
}

// fieldsOf takes an order apart, as it is on the wire.
func fieldsOf(order protocol.StartInstance) (map[string]any, error) {
	frame, err := protocol.Encode("", order)
	if err != nil {
		return nil, err
	}
	var envelope struct{ Data map[string]any }
	return envelope.Data, json.Unmarshal(frame, &envelope)
}

// judge sends one command and looks at its refusal.
func (p *place) judge(ctx context.Context, v *verdict, what, event string, data json.RawMessage, code protocol.ErrorCode, names string) {
	v.of++
	answer, err := p.ask(ctx, event, data)
	switch {
	case err != nil:
		v.fail("%s: %v", what, err)
	case answer.OK || answer.Error == nil:
		v.fail("%s: was not refused", what)
	case answer.Error.Code != code:
		v.fail("%s: refused as %s, want %s: %s", what, answer.Error.Code, code, answer.Error.Message)
	case !strings.Contains(answer.Error.Message, names):
		v.fail("%s: the refusal does not name %q: %s", what, names, answer.Error.Message)
	default:
		v.got++
	}
}

// ask sends a frame with an id of its own and waits for its answer.
func (p *place) ask(ctx context.Context, event string, data json.RawMessage) (*protocol.CommandResult, error) {
	id := rand.Text()
	frame, err := json.Marshal(map[string]any{"id": id, "event": event})
	if err != nil {
		return nil, err
	}
	// The data goes in as it is: marshalling would set it right.
	frame = append(append(append(frame[:len(frame)-1], `,"data":`...), data...), '}')
	mark := p.Backend.Mark()
	if err := p.Backend.SendRaw(p.node, frame); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	got, err := p.Backend.WaitEvent(ctx, mark, func(e backend.Event) bool { return e.ID == id })
	if err != nil {
		return nil, err
	}
	answer, ok := got.Message.(*protocol.CommandResult)
	if !ok {
		return nil, fmt.Errorf("answered by a %s", got.Message.Event())
	}
	return answer, nil
}

// drained orders while the node takes nothing new.
func (p *place) drained(ctx context.Context, v *verdict, good map[string]any) error {
	if _, err := p.Backend.DrainNode(ctx, p.node, protocol.DrainNode{}); err != nil {
		return err
	}
	good["rental_id"] = "while-draining"
	data, err := json.Marshal(good)
	if err != nil {
		return err
	}
	p.judge(ctx, v, "an order to a node that drains", "start_instance", data, protocol.NotAccepting, "draining")
	_, err = p.Backend.ResumeNode(ctx, p.node)
	return err
}

// unread sends frames that cannot be answered; after each of them the agent has to be there, on the same connection.
func (p *place) unread(ctx context.Context, v *verdict) {
	before, _ := p.Backend.Node(p.node)
	for i, frame := range unreadable() {
		v.of++
		if err := p.Backend.SendRaw(p.node, []byte(frame)); err != nil {
			v.fail("unreadable frame %d: %v", i, err)
			continue
		}
		answer, err := p.ask(ctx, "get_logs", json.RawMessage(`{"rental_id":"nobody"}`))
		now, _ := p.Backend.Node(p.node)
		switch {
		case err != nil:
			v.fail("after unreadable frame %d: %v", i, err)
		case answer.Error == nil || answer.Error.Code != protocol.NotFound:
			v.fail("after unreadable frame %d the agent answers otherwise: %v", i, answer)
		case now.Connections != before.Connections:
			v.fail("unreadable frame %d cost the connection", i)
		default:
			v.got++
		}
	}
}

// broken sends frames that break the contract of the link. Each costs the connection, and the agent has to come back on a
// new one.
func (p *place) broken(ctx context.Context, v *verdict) error {
	for _, b := range breaking() {
		v.of++
		before, _ := p.Backend.Node(p.node)
		if err := p.Backend.SendRaw(p.node, []byte(b.frame)); err != nil {
			return fmt.Errorf("sending %s: %w", b.what, err)
		}
		if err := p.connected(ctx, before.Connections+1); err != nil {
			v.fail("%s: the agent does not hang up and come back: %v", b.what, err)
			continue
		}
		answer, err := p.ask(ctx, "get_logs", json.RawMessage(`{"rental_id":"nobody"}`))
		switch {
		case err != nil:
			v.fail("after %s: %v", b.what, err)
		case answer.Error == nil || answer.Error.Code != protocol.NotFound:
			v.fail("after %s the agent answers otherwise: %v", b.what, answer)
		default:
			v.got++
		}
	}
	return nil
}

// connected waits until the agent has come so many times, and has told again what it is.
func (p *place) connected(ctx context.Context, times int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if node, _ := p.Backend.Node(p.node); node.Connected && node.Connections >= times {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
