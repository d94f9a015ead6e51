package rental

import (
	"fmt"
	"time"
)

// Settle tells that the backend has recorded the final status with this sequence: the rental is
// forgotten but for a record by which a repeated order is known. Settling it again succeeds; a
// rental that has not ended with this sequence is a *Failure with CodeConflict, an unknown one
// with CodeNotFound.
func (b *Book) Settle(id ID, sequence int64) error {
	l, ok := b.find(id)
	if !ok {
		return Failf(CodeNotFound, "There is no rental %s on this host.", id)
	}
	if last := l.status(); !last.State.Final() || sequence != last.Sequence {
		return Failf(CodeConflict, "Rental %s has no final status %d; its latest is %d, %s.", id, sequence, last.Sequence, last.State)
	}
	return l.settle()
}

// settle notes it on disk. Should that be lost, the final status is merely told once more.
func (l *life) settle() error {
	if l.settled() {
		return nil
	}
	if _, err := l.page.write(noted, func(r *record) { r.SettledAt = time.Now().UTC().Round(0) }); err != nil {
		return fmt.Errorf("settling rental %s: %w", l.id, err)
	}
	l.done.Store(true)
	return nil
}

// tidy settles what nobody has settled in time and forgets what was settled long ago.
func (b *Book) tidy() {
	now := time.Now()
	for _, l := range b.all() {
		if !l.final() {
			continue
		}
		_, rec := l.page.read()
		switch {
		case rec.SettledAt.IsZero() && now.Sub(rec.At) > b.opts.Keep:
			l.log.Warn("nobody has acknowledged the end of a rental; it is given up", "ended", rec.EndedAt)
			if err := l.settle(); err != nil {
				l.log.Error("settling a rental", "error", err)
			}
		case !rec.SettledAt.IsZero() && now.Sub(rec.SettledAt) > b.opts.Keep:
			b.forget(l)
		}
	}
}

func (b *Book) forget(l *life) {
	if err := b.disk.remove(l.page.name); err != nil {
		l.log.Error("removing the record of a settled rental", "error", err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.known, l.id)
}
