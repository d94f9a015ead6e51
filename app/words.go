package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

const none = "–" // stands for a value that could not be measured

// show formats a value that may not have been measured.
func show[T any](value *T, format string) string {
	if value == nil {
		return none
	}
	return fmt.Sprintf(format, *value)
}

// measured joins words, without those that stand for nothing.
func measured(words ...string) string {
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == none }), ", ")
}

// mebibytes writes MiB in the unit that people say.
func mebibytes(mb *int64) string {
	if mb == nil {
		return none
	}
	return inBytes(*mb << 20)
}

func inBytes(n int64) string {
	value, units := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for value >= 1024 && i < len(units)-1 {
		value /= 1024
		i++
	}
	if i == 0 || value >= 100 {
		return fmt.Sprintf("%.0f %s", value, units[i])
	}
	return fmt.Sprintf("%.1f %s", value, units[i])
}

// span writes a duration with its two largest units: "2 h 5 min".
func span(d time.Duration) string {
	switch d = d.Truncate(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d d %d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// clock writes a moment as a person nearby says it.
func clock(t, now time.Time) string {
	t = t.Local()
	if y, m, d := t.Date(); sameDay(y, m, d, now.Local()) {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04")
}

func sameDay(y int, m time.Month, d int, other time.Time) bool {
	oy, om, od := other.Date()
	return y == oy && m == om && d == od
}

// plural counts: "1 rental", "2 rentals".
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// count is plural for a number that may not have been measured.
func count(n *int, word string) string {
	if n == nil {
		return none
	}
	return plural(*n, word)
}

// table aligns columns.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer) table { return table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

func (t table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = plain(cell)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

// plain takes control characters out of words that came from elsewhere: a terminal would obey them.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}

func (t table) flush() error { return t.w.Flush() }
