package rental

import (
	"fmt"
	"time"
)

// Accept takes a rental on. When it returns without an error the order is on disk, and the rental
// starts, in this process or in the next. The same order again gets the rental's latest status and
// starts nothing, also after the rental has ended, for as long as its record is kept; another order
// under the same ID is a *Failure with CodeConflict. spec is not to be changed afterwards.
func (b *Book) Accept(spec Spec) (Status, error) {
	if err := b.running(); err != nil {
		return Status{}, err
	}
	if _, err := ParseID(string(spec.ID)); err != nil {
		return Status{}, Failf(CodeInvalid, "%v.", err)
	}
	// A time from the wire and the same one from the ledger must be written alike.
	spec.ExpiresAt = spec.ExpiresAt.UTC()
	sum, err := specSum(spec)
	if err != nil {
		return Status{}, fmt.Errorf("accepting rental %s: %w", spec.ID, err)
	}

	b.accepting.Lock()
	defer b.accepting.Unlock()
	if l, ok := b.find(spec.ID); ok {
		return l.again(sum)
	}
	now := time.Now().UTC().Round(0)
	p, err := newPage(b.disk, heading{
		Version: formatVersion, ID: spec.ID, AcceptedAt: now,
		SpecSum: sum, Private: spec.Registry != nil, Spec: spec,
	})
	if err != nil {
		return Status{}, fmt.Errorf("accepting rental %s: %w", spec.ID, err)
	}
	l := newLife(&b.opts, p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known[l.id] = l
	accepted := l.status()
	b.start(l)
	return accepted, nil
}

// again answers an order for a rental that is known.
func (l *life) again(sum string) (Status, error) {
	if l.accepted.SpecSum != sum {
		return Status{}, Failf(CodeConflict, "Rental %s was ordered before with other contents; use a new rental id.", l.id)
	}
	return l.status(), nil
}
