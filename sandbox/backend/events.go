package backend

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

// Kind is what an event is about.
type Kind string

// The kinds of events.
const (
	Connected    Kind = "connected"
	Disconnected Kind = "disconnected"
	Registered   Kind = "registered" // register has been answered
	Refused      Kind = "refused"    // a connection without a good key
	Garbled      Kind = "garbled"    // a frame that is not of the contract
	Message      Kind = "message"
)

// keptEvents are the newest ones that are sure to be there still; a backend may run for months.
const keptEvents = 50_000

// Event is one thing that happened.
type Event struct {
	At      time.Time
	Kind    Kind
	Node    string           // "" where no node is known
	ID      string           // of the frame, for Message
	Message protocol.Message // a pointer to one of the agent's messages, for Message
	Problem string           // one sentence, for Garbled
}

// record appends an event.
func (b *Backend) record(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.append(e)
}

// append needs mu held.
func (b *Backend) append(e Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	if len(b.events) == 2*keptEvents {
		b.forgotten += keptEvents
		// A copy: what is still being read by Events must not be written over.
		b.events = slices.Clone(b.events[keptEvents:])
	}
	b.events = append(b.events, e)
	close(b.grown)
	b.grown = make(chan struct{})
}

// Mark is the number of events so far: the place from which Events gives what comes from now on.
func (b *Backend) Mark() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.forgotten + len(b.events)
}

// Events gives every event from a mark on, 0 for all, and then waits for more until ctx ends. Of a
// great many, the oldest have been forgotten.
func (b *Backend) Events(ctx context.Context, from int) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			b.mu.Lock()
			from = max(from, b.forgotten)
			fresh, grown := b.events[min(from-b.forgotten, len(b.events)):], b.grown
			b.mu.Unlock()
			for _, event := range fresh {
				from++
				if !yield(event) {
					return
				}
			}
			if len(fresh) > 0 {
				continue
			}
			select {
			case <-grown:
			case <-ctx.Done():
				return
			}
		}
	}
}

// WaitEvent returns the first event from a mark on that match accepts.
func (b *Backend) WaitEvent(ctx context.Context, from int, match func(Event) bool) (Event, error) {
	for event := range b.Events(ctx, from) {
		if match(event) {
			return event, nil
		}
	}
	return Event{}, fmt.Errorf("waiting for an event: %w", context.Cause(ctx))
}

// WaitNode returns as soon as a node is there: registered, or sending heartbeats where the backend
// is too simple for registration.
func (b *Backend) WaitNode(ctx context.Context) (Node, error) {
	for range b.Events(ctx, 0) {
		for _, node := range b.Nodes() {
			if node.Registered || b.options.SeedOnly && node.Connected && node.Heartbeat != nil {
				return node, nil
			}
		}
	}
	return Node{}, fmt.Errorf("waiting for a node to register: %w", context.Cause(ctx))
}

// Reports gives every status of a rental, from its first on, and waits for more until the rental has
// ended or ctx ends.
func (b *Backend) Reports(ctx context.Context, rental string) iter.Seq[Report] {
	return func(yield func(Report) bool) {
		seen := 0
		for range b.Events(ctx, 0) {
			r, _ := b.Rental(rental)
			for _, report := range r.History[seen:] {
				seen++
				if !yield(report) || report.Status.Final() {
					return
				}
			}
		}
	}
}

// WaitState returns the first status of a rental with that state. A rental that has ended without
// it is an error that says how.
func (b *Backend) WaitState(ctx context.Context, rental, state string) (protocol.InstanceStatus, error) {
	last := protocol.InstanceStatus{State: "not heard of"}
	for report := range b.Reports(ctx, rental) {
		if last = report.Status; last.State == state {
			return last, nil
		}
	}
	if last.Final() {
		return last, fmt.Errorf("rental %s is %s%s, not %s", rental, last.State, because(last), state)
	}
	return last, fmt.Errorf("waiting until rental %s, which is %s, is %s: %w", rental, last.State, state, context.Cause(ctx))
}

func because(status protocol.InstanceStatus) string {
	if status.Error == nil {
		return ""
	}
	return fmt.Sprintf(" (%s: %s)", status.Error.Code, status.Error.Message)
}
