package rental

import "sync"

// durability says how much a write of the ledger is worth waiting for.
type durability int

const (
	// remembered changes reach the disk with the next write: progress, troubles.
	remembered durability = iota
	// noted survives the agent: what a killed agent needs to know, and a power cut may undo.
	noted
	// synced survives a power cut: promises, and what comes before an act.
	synced
	// sealed is synced, without what only a container needs, the renter's secrets first of all: the last
	// word on a rental.
	sealed
)

// reservation is how many sequence numbers a synced write sets aside, so that a status need not
// wait for the disk and the next agent still knows where to go on.
const reservation = 256

// page is one rental in the ledger. Its life and those who end it write on it.
type page struct {
	disk disk
	name string

	mu   sync.Mutex
	head heading
	rec  record
	// rewrite is set when the file's end is not to be trusted: the next write replaces the file.
	rewrite bool
	lines   int // that have been added to the file since it was written as a whole
}

// mostLines is after how many lines a file is written anew: what runs for months must not fill the disk.
const mostLines = 500

// newPage puts an order on disk. Should that fail the order was not taken, so no trace of it may stay
// for the next agent to carry out.
func newPage(d disk, h heading) (*page, error) {
	p := &page{disk: d, name: fileName(h.ID), head: h, rewrite: true}
	_, err := p.write(synced, func(r *record) {
		r.State, r.Sequence, r.At = Accepted, 1, h.AcceptedAt
	})
	if err != nil {
		_ = d.remove(p.name) // as a rule it is not there
		return nil, err
	}
	return p, nil
}

// read gives the heading and the record as they are now.
func (p *page) read() (heading, record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.head, p.rec
}

// write changes the record, on disk as far as asked. After an error the record is as before, also when
// the disk has taken the change all the same: the next write then replaces it.
func (p *page) write(how durability, change func(*record)) (record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.rec
	change(&next)
	if next.Sequence > next.Reserved && how < synced {
		how = synced
	}
	head := p.head
	switch how {
	case synced:
		next.Reserved = next.Sequence + reservation
	case sealed:
		next.Reserved = next.Sequence
		head.Spec.Env, head.Spec.Command = nil, nil
	}
	if how != remembered {
		if err := p.save(how, head, next); err != nil {
			p.rewrite = true
			return p.rec, err
		}
		p.rewrite = false
	}
	p.head, p.rec = head, next
	return next, nil
}

func (p *page) save(how durability, h heading, r record) error {
	if p.rewrite || how == sealed || p.lines >= mostLines {
		data, err := encodeFile(h, r)
		if err != nil {
			return err
		}
		p.lines = 0
		return p.disk.replace(p.name, data)
	}
	p.lines++
	line, err := encodeLine(r)
	if err != nil {
		return err
	}
	return p.disk.extend(p.name, line, how == synced)
}
