package main

import (
	"strings"
	"testing"
)

func TestFooterKeepsBelowTheLines(t *testing.T) {
	var b strings.Builder
	f := &footer{w: &b, terminal: true}
	f.show("pulling 10 %")
	f.show("pulling 10 %") // nothing new, nothing painted
	f.Write([]byte("line\n"))
	f.show("short")
	f.show("")
	f.Write([]byte("last\n"))
	want := "\rpulling 10 %" + "\r            \r" + "line\n" + "\rpulling 10 %" + "\rshort       " + "\r     \r" + "last\n"
	if b.String() != want {
		t.Errorf("got  %q\nwant %q", b.String(), want)
	}
}

func TestFooterNeedsATerminal(t *testing.T) {
	var b strings.Builder
	f := newFooter(&b)
	f.show("pulling")
	f.Write([]byte("line\n"))
	if b.String() != "line\n" {
		t.Errorf("got %q", b.String())
	}
}

func TestFooterFitsTheLine(t *testing.T) {
	var b strings.Builder
	f := &footer{w: &b, terminal: true}
	f.show(strings.Repeat("–", 200))
	if want := "\r" + strings.Repeat("–", 79); b.String() != want {
		t.Errorf("got %q", b.String())
	}
}
