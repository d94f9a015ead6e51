package rental

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// openLedger reads every rental's page, oldest first. A damaged one ends its rental, a file that is no
// rental's is set aside, and the others stand; a file of a newer version stops it all, because what it says
// must not be lost.
func openLedger(d disk, log *slog.Logger) ([]*page, error) {
	names, err := d.names()
	if err != nil {
		return nil, fmt.Errorf("listing the ledger: %w", err)
	}
	var pages []*page
	for _, name := range names {
		if strings.HasSuffix(name, fileSuffix+freshSuffix) {
			// A write that a crash cut short: what it was to replace still holds.
			if err := d.remove(name); err != nil {
				return nil, fmt.Errorf("removing an unfinished record: %w", err)
			}
			continue
		}
		if !strings.HasSuffix(name, fileSuffix) {
			continue
		}
		data, err := d.read(name)
		if err != nil {
			return nil, fmt.Errorf("reading a record: %w", err)
		}
		p, err := openPage(d, name, data, log)
		if errors.Is(err, errNewer) {
			return nil, fmt.Errorf("the record %s was written by a newer version of the agent: install that version again, or let it end its rentals first", name)
		}
		if err != nil {
			log.Error("a file in the ledger is no rental's; it has been set aside",
				"file", name, "kept_as", name+corruptSuffix, "error", err)
			if err := d.rename(name, name+corruptSuffix); err != nil {
				return nil, fmt.Errorf("setting a file of the ledger aside: %w", err)
			}
			continue
		}
		pages = append(pages, p)
	}
	slices.SortFunc(pages, func(a, b *page) int { return a.head.order(b.head) })
	return pages, nil
}

func openPage(d disk, name string, data []byte, log *slog.Logger) (*page, error) {
	h, r, clean, damage := decodeFile(data)
	if errors.Is(damage, errNewer) {
		return nil, damage
	}
	id, ok := fileID(name)
	if damage != nil {
		h, r = salvage(id, h, r)
	}
	if !ok || id != h.ID || id != h.Spec.ID {
		return nil, errors.New("the name of the file is not that of the rental in it")
	}
	switch {
	case damage != nil:
		log.Error("a rental's record is damaged; the rental is ended if it has not been", "rental", id, "error", damage)
	case !clean:
		log.Warn("a rental's record ends in a damaged line; the one before it holds", "rental", id)
	}
	p := &page{disk: d, name: name, head: h, rec: r, rewrite: !clean}
	if !r.State.Final() {
		// The killed agent may have told statuses up to here.
		p.rec.Sequence = r.Reserved
	}
	return p, nil
}

// salvage makes up what a damaged file has lost, so that what the rental has on the engine is removed
// and its end is told. One that is known to have ended stays as it is.
func salvage(id ID, h heading, r record) (heading, record) {
	now := time.Now().UTC().Round(0)
	if h.ID == "" {
		h = heading{Version: formatVersion, ID: id, AcceptedAt: now, Spec: Spec{ID: id}}
	}
	if r.State == "" {
		// No rental has told as many statuses as there have been seconds since 1970.
		r = record{Sequence: now.Unix(), Reserved: now.Unix(), At: now}
	}
	if r.State.Final() {
		return h, r
	}
	if r.Ending == nil {
		r.Ending = &ending{State: Failed, Failure: Failf(CodeInterrupted, "The agent's record of the rental was damaged on the host's disk, so the rental had to be ended.")}
	}
	r.State, r.Addresses = Stopping, nil
	return h, r
}

// order sorts oldest first.
func (h heading) order(other heading) int {
	if c := h.AcceptedAt.Compare(other.AcceptedAt); c != 0 {
		return c
	}
	return strings.Compare(string(h.ID), string(other.ID))
}
