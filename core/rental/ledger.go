package rental

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// openLedger reads every rental's page, oldest first. A file that makes no sense is set aside and
// the others stand; a file of a newer version stops it all, because what it says must not be lost.
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
			log.Error("a rental's record is damaged; it has been set aside and the rental is not known any more",
				"file", name, "kept_as", name+corruptSuffix, "error", err)
			if err := d.rename(name, name+corruptSuffix); err != nil {
				return nil, fmt.Errorf("setting a damaged record aside: %w", err)
			}
			continue
		}
		pages = append(pages, p)
	}
	slices.SortFunc(pages, func(a, b *page) int { return a.head.order(b.head) })
	return pages, nil
}

func openPage(d disk, name string, data []byte, log *slog.Logger) (*page, error) {
	h, r, clean, err := decodeFile(data)
	if err != nil {
		return nil, err
	}
	if id, ok := fileID(name); !ok || id != h.ID || id != h.Spec.ID {
		return nil, errors.New("the name of the file is not that of the rental in it")
	}
	if !clean {
		log.Warn("a rental's record ends in a damaged line; the one before it holds", "rental", h.ID)
	}
	p := &page{disk: d, name: name, head: h, rec: r, rewrite: !clean}
	if !r.State.Final() {
		// The killed agent may have told statuses up to here.
		p.rec.Sequence = r.Reserved
	}
	return p, nil
}

// order sorts oldest first.
func (h heading) order(other heading) int {
	if c := h.AcceptedAt.Compare(other.AcceptedAt); c != 0 {
		return c
	}
	return strings.Compare(string(h.ID), string(other.ID))
}
