package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// narrator tells a person what is happening: a line with a check mark for each step that is done,
// details below it, and on a terminal a line of progress that is overwritten.
type narrator struct {
	out      io.Writer
	terminal bool
	begun    time.Time // the step that is told next
	transit  bool      // a line of progress stands on the terminal
}

func newNarrator(out io.Writer) *narrator {
	file, ok := out.(*os.File)
	return &narrator{out: out, terminal: ok && term.IsTerminal(int(file.Fd())), begun: time.Now()}
}

// say prints a plain line.
func (n *narrator) say(format string, args ...any) {
	n.clear()
	fmt.Fprintf(n.out, format+"\n", args...)
}

// now shows what is being waited for, until the next line takes its place. Only terminals see it.
func (n *narrator) now(format string, args ...any) {
	if !n.terminal {
		return
	}
	n.clear()
	fmt.Fprintf(n.out, "  … "+format, args...)
	n.transit = true
}

// done ends a step.
func (n *narrator) done(format string, args ...any) {
	n.say("  ✓ %-58s %6.2f s", fmt.Sprintf(format, args...), time.Since(n.begun).Seconds())
	n.begun = time.Now()
}

// detail adds a line to the step that was done last.
func (n *narrator) detail(name, format string, args ...any) {
	n.say("      %-10s %s", name, fmt.Sprintf(format, args...))
}

func (n *narrator) clear() {
	if n.transit {
		fmt.Fprint(n.out, "\r\x1b[K")
		n.transit = false
	}
}

// bar draws how far something is.
func bar(current, total int64) string {
	const width = 24
	filled := 0
	if total > 0 {
		filled = int(width * min(current, total) / total)
	}
	return strings.Repeat("█", filled) + strings.Repeat("░", width-filled)
}
