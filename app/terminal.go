package main

import (
	"io"
	"os"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"
)

// isTerminal reports whether somebody looks at w as it is written.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width is how many characters fit into a line of w; 80 where that cannot be told.
func width(w any) int {
	if f, ok := w.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			return columns
		}
	}
	return 80
}

// footer writes lines to a terminal and keeps one more below them, which changes in place. Without
// a terminal there is no such line. It needs no escape sequences, so it works on every console.
type footer struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	text     string
}

func newFooter(w io.Writer) *footer { return &footer{w: w, terminal: isTerminal(w)} }

// Write writes whole lines above the footer.
func (f *footer) Write(lines []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := f.text
	f.paint("")
	n, err := f.w.Write(lines)
	f.paint(text)
	return n, err
}

// show replaces the footer; "" takes it away.
func (f *footer) show(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if most := width(f.w) - 1; utf8.RuneCountInString(text) > most {
		text = string([]rune(text)[:most])
	}
	if text != f.text {
		f.paint(text)
	}
}

func (f *footer) paint(text string) {
	if !f.terminal || text == "" && f.text == "" {
		return
	}
	rest := utf8.RuneCountInString(f.text) - utf8.RuneCountInString(text)
	line := "\r" + text + strings.Repeat(" ", max(rest, 0))
	if text == "" {
		line += "\r"
	}
	io.WriteString(f.w, line)
	f.text = text
}
