//go:build linux

package main

import "fmt"

// verdict is what one part has found.
type verdict struct {
	name  string // "refused"
	got   int
	of    int
	want  int      // what got has to be: of, or 0
	wrong []string // what fell short, a line each
	notes []string // what else is worth knowing
}

// String gives the part's line: "refused 190/190".
func (v verdict) String() string { return fmt.Sprintf("%s %d/%d", v.name, v.got, v.of) }

// short reports whether the part falls short of what it is to prove. One that tried nothing has proven nothing.
func (v verdict) short() bool { return v.of == 0 || v.got != v.want || len(v.wrong) > 0 }

// fail notes something that fell short.
func (v *verdict) fail(format string, args ...any) {
	v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
}

// note keeps something that is worth knowing.
func (v *verdict) note(format string, args ...any) {
	v.notes = append(v.notes, fmt.Sprintf(format, args...))
}
