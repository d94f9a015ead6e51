package backend

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// StartInstance orders a rental. Like every command it returns the node's answer, which may be a
// refusal; a backend that is SeedOnly gets no answers and returns the zero value.
func (b *Backend) StartInstance(ctx context.Context, node string, order protocol.StartInstance) (protocol.CommandResult, error) {
	if order.PricePerHour == "" && !b.options.SeedOnly {
		order.PricePerHour = b.options.PricePerHour
	}
	if _, err := b.sessionOf(node); err != nil {
		return protocol.CommandResult{}, err
	}
	b.mu.Lock()
	r := b.rental(order.RentalID, node)
	if r.Order == nil {
		r.Order, r.ordered = &order, time.Now()
	}
	b.mu.Unlock()
	answer, err := b.Command(ctx, node, order)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(r.History) == 0 {
		r.Refusal = answer.Error
	}
	return answer, err
}

// StopInstance ends a rental.
func (b *Backend) StopInstance(ctx context.Context, node string, stop protocol.StopInstance) (protocol.CommandResult, error) {
	return b.Command(ctx, node, stop)
}

// DrainNode asks a node to take no new rentals.
func (b *Backend) DrainNode(ctx context.Context, node string, drain protocol.DrainNode) (protocol.CommandResult, error) {
	return b.Command(ctx, node, drain)
}

// ResumeNode undoes DrainNode.
func (b *Backend) ResumeNode(ctx context.Context, node string) (protocol.CommandResult, error) {
	return b.Command(ctx, node, protocol.ResumeNode{})
}

// GetLogs asks for a rental's newest output. A refusal is a *protocol.Error.
func (b *Backend) GetLogs(ctx context.Context, node string, ask protocol.GetLogs) (protocol.Logs, error) {
	return resultOf[protocol.Logs](ctx, b, node, ask)
}

// RunSpeedtest asks a node to measure its network. A refusal is a *protocol.Error.
func (b *Backend) RunSpeedtest(ctx context.Context, node string) (protocol.Network, error) {
	return resultOf[protocol.Network](ctx, b, node, protocol.RunSpeedtest{})
}

// resultOf sends a command whose answer carries a result.
func resultOf[Result any](ctx context.Context, b *Backend, node string, command protocol.Message) (result Result, err error) {
	answer, err := b.Command(ctx, node, command)
	if err != nil {
		return result, err
	}
	if answer.Error != nil {
		return result, answer.Error
	}
	text, _ := answer.Result.(json.RawMessage)
	if err := json.Unmarshal(text, &result); err != nil {
		return result, fmt.Errorf("reading the result of %s: %w", command.Event(), err)
	}
	return result, nil
}

// Command sends any message with an id and waits for its answer, until ctx ends or the connection
// is lost. A SeedOnly backend sends it without an id and does not wait.
func (b *Backend) Command(ctx context.Context, node string, command protocol.Message) (protocol.CommandResult, error) {
	if b.options.SeedOnly {
		return protocol.CommandResult{}, b.Send(node, command)
	}
	s, err := b.sessionOf(node)
	if err != nil {
		return protocol.CommandResult{}, err
	}
	id := rand.Text()
	answer := s.expect(id)
	if err := s.send(id, command); err != nil {
		return protocol.CommandResult{}, fmt.Errorf("sending %s: %w", command.Event(), err)
	}
	select {
	case result := <-answer:
		return result, nil
	case <-s.gone:
		return protocol.CommandResult{}, errGone
	case <-ctx.Done():
		return protocol.CommandResult{}, fmt.Errorf("waiting for the answer to %s: %w", command.Event(), context.Cause(ctx))
	}
}

// Send sends a message that wants no answer, such as a notice.
func (b *Backend) Send(node string, message protocol.Message) error {
	s, err := b.sessionOf(node)
	if err != nil {
		return err
	}
	return s.send("", message)
}

// SendRaw sends a frame as it is, however wrong.
func (b *Backend) SendRaw(node string, frame []byte) error {
	s, err := b.sessionOf(node)
	if err != nil {
		return err
	}
	return s.write(frame)
}

func (b *Backend) sessionOf(id string) (*session, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.byID(id)
	if n == nil {
		return nil, fmt.Errorf("node %q is not known", id)
	}
	if n.session == nil {
		return nil, fmt.Errorf("node %q is not connected", id)
	}
	return n.session, nil
}
