package agent

import "sync"

// event is a message into the loop. The set is closed: only this package makes them.
type event interface{ apply(l *loop) }

// mailbox carries events into the loop. Posting never waits, so whoever posts may be called by the
// loop itself; a storm is bounded where it begins, at the commands (see lanes).
type mailbox struct {
	mu    sync.Mutex
	queue []event
	tick  chan struct{} // capacity 1: "look into the queue"
}

func newMailbox() *mailbox { return &mailbox{tick: make(chan struct{}, 1)} }

func (m *mailbox) post(e event) {
	m.mu.Lock()
	m.queue = append(m.queue, e)
	m.mu.Unlock()
	notify(m.tick)
}

// take empties the queue.
func (m *mailbox) take() []event {
	m.mu.Lock()
	defer m.mu.Unlock()
	queue := m.queue
	m.queue = nil
	return queue
}

// notify leaves a tick where there is none yet.
func notify(tick chan<- struct{}) {
	select {
	case tick <- struct{}{}:
	default:
	}
}
