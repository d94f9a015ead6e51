package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// record writes n notes into the record of dir, as one agent does in its life.
func record(t *testing.T, o Options, n int) {
	t.Helper()
	l := Open(o)
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	for i := range n {
		l.Note("asked", fmt.Sprintf("r-%d", i), map[string]any{"event": "start_instance", "digest": strings.Repeat("a", 64)})
	}
	leave()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func intact(t *testing.T, dir string) Summary {
	t.Helper()
	s, err := Verify(dir)
	if err != nil {
		t.Fatalf("the record does not hold: %v", err)
	}
	return s
}

func broken(t *testing.T, dir, file string, line int) {
	t.Helper()
	_, err := Verify(dir)
	b, ok := errors.AsType[*Broken](err)
	if !ok || b.File != file || b.Line != line || b.Why == "" {
		t.Errorf("got %v, want broken at %s:%d", err, file, line)
	}
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func write(t *testing.T, dir, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestChainGoesOnOverRestarts(t *testing.T) {
	dir := t.TempDir()
	if _, err := Verify(dir); !errors.Is(err, ErrNone) {
		t.Errorf("without a record: %v", err)
	}
	record(t, Options{Dir: dir}, 3)
	record(t, Options{Dir: dir}, 0)
	record(t, Options{Dir: dir}, 2)
	if diff := cmp.Diff(Summary{Entries: 5, First: 1, Last: 5}, intact(t, dir)); diff != "" {
		t.Error(diff)
	}
	for e, err := range Entries(dir) {
		if err != nil || e.Kind != "asked" || e.Rental == "" || !bytes.Contains(e.Data, []byte("start_instance")) || time.Since(e.At) > time.Hour {
			t.Errorf("%+v %v", e, err)
		}
	}
	for _, name := range []string{logName, headName} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 && os.PathSeparator == '/' {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
}

// TestTampering: whatever is done to the lines is seen, and where.
func TestTampering(t *testing.T) {
	forged := func(line []byte, change func(*Entry)) []byte {
		e, err := readLine(line)
		if err != nil {
			t.Fatal(err)
		}
		change(&e)
		made, err := e.line()
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	for name, tt := range map[string]struct {
		tamper func(lines [][]byte) [][]byte
		line   int
	}{
		"altered": {func(l [][]byte) [][]byte { l[2] = bytes.Replace(l[2], []byte("r-2"), []byte("r-7"), 1); return l }, 3},
		"altered, with a sum that fits": {func(l [][]byte) [][]byte {
			l[2] = forged(l[2], func(e *Entry) { e.Rental = "r-7" })
			return l
		}, 4},
		"last altered, with a sum that fits": {func(l [][]byte) [][]byte {
			l[5] = forged(l[5], func(e *Entry) { e.Rental = "r-7" })
			return l
		}, 6},
		"a sum altered":   {func(l [][]byte) [][]byte { l[2][len(l[2])-10] ^= 1; return l }, 3},
		"first removed":   {func(l [][]byte) [][]byte { return l[1:] }, 0},
		"one removed":     {func(l [][]byte) [][]byte { return append(l[:2], l[3:]...) }, 3},
		"swapped":         {func(l [][]byte) [][]byte { l[2], l[3] = l[3], l[2]; return l }, 3},
		"doubled":         {func(l [][]byte) [][]byte { return append(l[:3], l[2:]...) }, 4},
		"last removed":    {func(l [][]byte) [][]byte { return l[:5] }, 6},
		"all but one":     {func(l [][]byte) [][]byte { return l[:1] }, 2},
		"tail cut":        {func(l [][]byte) [][]byte { l[5] = l[5][:40]; return l }, 7},
		"emptied":         {func([][]byte) [][]byte { return nil }, 1},
		"a line of ours":  {func(l [][]byte) [][]byte { return append(l, []byte("{}\n")) }, 7},
		"an empty line":   {func(l [][]byte) [][]byte { return append([][]byte{[]byte("\n")}, l...) }, 1},
		"a field more":    {func(l [][]byte) [][]byte { l[0] = bytes.Replace(l[0], []byte(`{`), []byte(`{"x":1,`), 1); return l }, 1},
		"a very long one": {func(l [][]byte) [][]byte { l[1] = append(bytes.Repeat([]byte("x"), 2*longestLine), '\n'); return l }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			record(t, Options{Dir: dir}, 6)
			lines := bytes.SplitAfter(read(t, dir, logName), []byte("\n"))
			lines = lines[:len(lines)-1]
			write(t, dir, logName, bytes.Join(tt.tamper(lines), nil))
			file := logName
			if tt.line == 0 {
				file = ""
			}
			broken(t, dir, file, tt.line)

			// The next agent does not hide it.
			record(t, Options{Dir: dir}, 2)
			if _, err := Verify(dir); err == nil {
				t.Error("after the next start the record holds")
			}
		})
	}
}

func TestHeadIsMissed(t *testing.T) {
	dir := t.TempDir()
	record(t, Options{Dir: dir}, 3)
	if err := os.Remove(filepath.Join(dir, headName)); err != nil {
		t.Fatal(err)
	}
	broken(t, dir, headName, 0)
	record(t, Options{Dir: dir}, 1)
	broken(t, dir, logName, 4)
	write(t, dir, headName, []byte("?"))
	if _, err := Verify(dir); err == nil {
		t.Error("a head that cannot be read passes")
	}
}

// TestTornLine: a power cut in the middle of a line is no tampering. The half is kept aside, and the chain goes on.
func TestTornLine(t *testing.T) {
	dir := t.TempDir()
	record(t, Options{Dir: dir}, 3)
	half := []byte(`{"seq":4,"at":"2026`)
	write(t, dir, logName, append(read(t, dir, logName), half...))
	if s := intact(t, dir); s.Entries != 3 {
		t.Errorf("before the next start: %+v", s)
	}
	record(t, Options{Dir: dir}, 2)
	if diff := cmp.Diff(Summary{Entries: 6, First: 1, Last: 6, Torn: 1}, intact(t, dir)); diff != "" {
		t.Error(diff)
	}
	if got := read(t, dir, tornName); !bytes.Equal(got, half) {
		t.Errorf("set aside: %q", got)
	}
}

// TestLineAheadOfHead: a power cut after the lines and before the head is no tampering either.
func TestLineAheadOfHead(t *testing.T) {
	dir := t.TempDir()
	record(t, Options{Dir: dir}, 3)
	early := read(t, dir, headName)
	record(t, Options{Dir: dir}, 2)
	write(t, dir, headName, early)
	intact(t, dir)
	record(t, Options{Dir: dir}, 1)
	if s := intact(t, dir); s.Last != 6 {
		t.Errorf("%+v", s)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	small := Options{Dir: dir, MaxFileBytes: 2 << 10, Files: 3}
	for range 5 {
		record(t, small, 40)
	}
	s := intact(t, dir)
	if s.First == 1 || s.Last < 200 || s.Entries != int(s.Last-s.First+1) {
		t.Errorf("%+v", s)
	}
	total := 0
	for _, name := range []string{logName, logName + ".1", logName + ".2"} {
		size := len(read(t, dir, name))
		if total += size; size > int(small.MaxFileBytes)+1024 {
			t.Errorf("%s has %d bytes", name, size)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, logName+".3")); err == nil {
		t.Error("there are four files")
	}
	if total > 10<<10 {
		t.Errorf("%d bytes in all", total)
	}

	kept := read(t, dir, logName+".2")
	if err := os.Remove(filepath.Join(dir, logName+".2")); err != nil {
		t.Fatal(err)
	}
	broken(t, dir, "", 0)
	write(t, dir, logName+".2", kept)
	intact(t, dir)
	middle := read(t, dir, logName+".1")
	write(t, dir, logName+".1", nil)
	broken(t, dir, logName, 1)
	write(t, dir, logName+".1", middle)
	write(t, dir, logName+".2", middle)
	write(t, dir, logName+".1", kept)
	broken(t, dir, logName+".1", 1)
}

// TestStormIsBounded: what comes faster than the medium takes it is counted.
func TestStormIsBounded(t *testing.T) {
	dir := t.TempDir()
	l := Open(Options{Dir: dir})
	for range queued + 500 {
		l.Note("asked", "", nil)
	}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Summary{Entries: queued + 1, First: 1, Last: queued + 1, Dropped: 500}, intact(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// TestDataIsBounded: what is too much, or cannot be written, leaves a line that says so.
func TestDataIsBounded(t *testing.T) {
	dir := t.TempDir()
	l := Open(Options{Dir: dir})
	l.Note("asked", "", strings.Repeat("x", longestLine))
	l.Note("asked", "", func() {})
	ctx, leave := context.WithCancel(t.Context())
	leave()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if s := intact(t, dir); s.Entries != 2 {
		t.Errorf("%+v", s)
	}
}

// TestMediumComesBack: while the record cannot be written, who notes something does not wait, and afterwards it goes on.
func TestMediumComesBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	synctest.Test(t, func(t *testing.T) {
		l := Open(Options{Dir: dir})
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		for range 3 {
			l.Note("asked", "", nil)
			synctest.Wait()
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * retryAfter)
		leave()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
	if s := intact(t, dir); s.Entries != 3 {
		t.Errorf("%+v", s)
	}
}

// TestLinkIsNotFollowed: nobody has the agent write elsewhere.
func TestLinkIsNotFollowed(t *testing.T) {
	dir, target := t.TempDir(), filepath.Join(t.TempDir(), "target")
	write(t, filepath.Dir(target), "target", []byte("precious"))
	if err := os.Symlink(target, filepath.Join(dir, logName)); err != nil {
		t.Skip(err)
	}
	record(t, Options{Dir: dir}, 1)
	if got := read(t, filepath.Dir(target), "target"); string(got) != "precious" {
		t.Errorf("%q", got)
	}
}

// TestVerifyWhileWriting: an agent at work, whose files change their names, is never taken for tampering.
func TestVerifyWhileWriting(t *testing.T) {
	dir := t.TempDir()
	record(t, Options{Dir: dir}, 1)
	l := Open(Options{Dir: dir, MaxFileBytes: 16 << 10, Files: 3})
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	for i := range 60 {
		for range 10 {
			l.Note("asked", "r-1", map[string]int{"i": i})
		}
		if _, err := Verify(dir); err != nil {
			t.Errorf("round %d: %v", i, err)
		}
	}
	leave()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s := intact(t, dir); s.Last < 600 {
		t.Errorf("%+v", s)
	}
}

// TestLastWordsAreWritten: what is noted just before the end stands in the record, whatever is being written then.
func TestLastWordsAreWritten(t *testing.T) {
	dir := t.TempDir()
	for i := range 30 {
		l := Open(Options{Dir: dir})
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		l.Note("agent_started", "", nil)
		if i%2 == 0 {
			time.Sleep(time.Duration(i) * 50 * time.Microsecond) // into the middle of the first flush, or around it
		}
		l.Note("agent_quit", "", nil)
		leave()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if s := intact(t, dir); s.Entries != 2*(i+1) {
			t.Fatalf("after %d starts: %+v", i+1, s)
		}
	}
}
