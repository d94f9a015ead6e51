package preflight

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

//go:embed table.json
var shipped []byte

// Table is what is known of versions, up to a day.
type Table struct {
	FactsTo    string     `json:"facts_to"` // 2006-01-02
	Components []Entry    `json:"components"`
	Backports  []Backport `json:"backports"`
}

// Entry is one component's rows.
type Entry struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	// Branch is how many numbers of a version name its branch: 2 where 1.7.33 is of branch 1.7.
	Branch int `json:"branch"`
	// GPU components concern hosts with NVIDIA GPUs alone.
	GPU bool `json:"gpu"`
	// Floors are the oldest versions that may be listed, one a branch, ascending. Branches that are newer
	// than the last floor are above it; others that are not named are below it.
	Floors []string `json:"floors"`
	// Recommended are the same for what is advised.
	Recommended []string   `json:"recommended"`
	Packages    []Package  `json:"packages"`
	Upgrade     string     `json:"upgrade"` // the vendor's packages
	Page        string     `json:"page"`    // how to install the vendor's
	Advisories  []Advisory `json:"advisories"`
}

// Package is one that a component may have been installed by.
type Package struct {
	Name   string `json:"name"`
	Vendor bool   `json:"vendor"` // it has the vendor's own version numbers
}

// Advisory is a hole.
type Advisory struct {
	ID    string   `json:"id"`
	Why   string   `json:"why"`
	Fixed []string `json:"fixed"` // the first versions without it, one a branch
	Grave bool     `json:"grave"` // it leads out of a rental, or stops the host's other rentals
	// ClosedBy are kernel modules without which there is no hole.
	ClosedBy []string `json:"closed_by"`
}

// Backport is a package of a distribution that carries every fix a floor stands for, though its number does not
// say so.
type Backport struct {
	Component    string `json:"component"`
	Distribution string `json:"distribution"`
	Release      string `json:"release"`
	Package      string `json:"package"`
	Version      string `json:"version"` // Debian's format
}

// Shipped is the table that this program was built with.
func Shipped() (*Table, error) {
	var t Table
	if err := json.Unmarshal(shipped, &t); err != nil {
		return nil, fmt.Errorf("reading the table of versions: %w", err)
	}
	return &t, nil
}

// Packages names all that a component may have been installed by.
func (t *Table) Packages() []string {
	var names []string
	for _, entry := range t.Components {
		for _, p := range entry.Packages {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Modules names the kernel modules without which some hole is closed.
func (t *Table) Modules() []string {
	var names []string
	for _, entry := range t.Components {
		for _, a := range entry.Advisories {
			names = append(names, a.ClosedBy...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// stale reports whether the table is too old to know what is new.
func (t *Table) stale(now time.Time) bool {
	day, err := time.Parse(dateLayout, t.FactsTo)
	return err != nil || now.Sub(day) > staleAfter
}

// reached reports whether v is at one of the versions of its branch, or of a newer branch than any of them.
func (e *Entry) reached(v version, versions []string) bool {
	newest := version{}
	for _, text := range versions {
		least, ok := parse(text)
		if !ok {
			continue
		}
		if v.branch(e.Branch).compare(least.branch(e.Branch)) == 0 {
			return v.compare(least) >= 0
		}
		if least.compare(newest) > 0 {
			newest = least
		}
	}
	return len(newest.numbers) > 0 && v.compare(newest) > 0
}
