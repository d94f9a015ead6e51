package rental_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/secret"
)

func (h *host) file(id rental.ID) string { return filepath.Join(h.dir, rental.FileName(id)) }

func TestLedgerKeepsSecretsToItself(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		s := spec("r-1")
		s.Command = []string{"sh", "-c", "a long script"}
		s.Registry = &rental.RegistryAuth{Username: "user", Password: secret.New("swordfish")}
		h.accept(s)
		h.expect("r-1", rental.Running, "")
		data, err := os.ReadFile(h.file("r-1"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(data, []byte("hunter2")) || bytes.Contains(data, []byte("swordfish")) || bytes.Contains(data, []byte("edacted")) {
			t.Errorf("the record has to hold the environment, and nothing of the registry's password:\n%s", data)
		}
		if runtime.GOOS != "windows" {
			file, _ := os.Stat(h.file("r-1"))
			dir, _ := os.Stat(h.dir)
			if file.Mode().Perm() != 0o600 || dir.Mode().Perm() != 0o700 {
				t.Errorf("modes %v and %v", file.Mode(), dir.Mode())
			}
		}
		h.end("r-1", nil, 0)
		h.expect("r-1", rental.Stopped, "")
		if data, _ := os.ReadFile(h.file("r-1")); bytes.Contains(data, []byte("hunter2")) || bytes.Contains(data, []byte("script")) {
			t.Errorf("the environment or the command is kept after the end:\n%s", data)
		}
		if _, err := h.book.Accept(s); err != nil {
			t.Errorf("the same order after that: %v", err)
		}
	})
}

// TestDamagedRecordEndsItsRental: what a damaged record is of is known by its file's name, so its GPU and
// its container are not left with it.
func TestDamagedRecordEndsItsRental(t *testing.T) {
	heading := func(data []byte) (first, rest []byte) {
		first, rest, _ = bytes.Cut(data, []byte("\n"))
		return first, rest
	}
	for name, damage := range map[string]func(data []byte) []byte{
		"empty":      func([]byte) []byte { return nil },
		"garbage":    func([]byte) []byte { return []byte("garbage\n") },
		"no records": func(data []byte) []byte { first, _ := heading(data); return append(first, '\n') },
		"no heading": func(data []byte) []byte { data[3] ^= 1; return data },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				h.accept(spec("bad"))
				h.accept(spec("good"))
				h.expect("good", rental.Running, "")
				last := h.expect("bad", rental.Running, "")
				h.leave()
				h.damage("bad", damage)
				h.boot()
				s := h.expect("bad", rental.Failed, rental.CodeInterrupted)
				if s.Sequence <= last.Sequence || s.EndedAt.IsZero() {
					t.Errorf("told as %d after %d, ended at %v", s.Sequence, last.Sequence, s.EndedAt)
				}
				h.expectNothing("bad")
				h.states("bad") // in order over both agents
				h.expect("good", rental.Running, "")
				files, err := os.ReadDir(h.dir)
				if err != nil || len(files) != 2 {
					t.Errorf("the ledger holds %v, %v", files, err)
				}
				if data, err := os.ReadFile(h.file("bad")); err != nil || bytes.Contains(data, []byte("hunter2")) {
					t.Errorf("the environment is kept after the end: %v", err)
				}

				h.leave()
				h.boot() // the record is whole again
				if diff := cmp.Diff(s, h.expect("bad", rental.Failed, rental.CodeInterrupted)); diff != "" {
					t.Error(diff)
				}
				if err := h.book.Settle("bad", s.Sequence); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestDamagedRecordOfAnEnd: an end that was told does not become another one.
func TestDamagedRecordOfAnEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("r-1"))
		h.expect("r-1", rental.Running, "")
		h.end("r-1", nil, 0)
		final := h.expect("r-1", rental.Stopped, "")
		for _, settled := range []bool{false, true} {
			h.leave()
			h.damage("r-1", func(data []byte) []byte { data[3] ^= 1; return data })
			h.boot()
			if s := h.expect("r-1", rental.Stopped, ""); s.Sequence != final.Sequence || !s.EndedAt.Equal(final.EndedAt) {
				t.Errorf("the end is now %+v", s)
			}
			if got := len(h.book.Statuses()) == 0; got != settled {
				t.Errorf("settled: %t, want %t", got, settled)
			}
			if err := h.book.Settle("r-1", final.Sequence); err != nil {
				t.Error(err)
			}
		}
	})
}

func (h *host) damage(id rental.ID, how func([]byte) []byte) {
	h.t.Helper()
	data, err := os.ReadFile(h.file(id))
	if err == nil {
		err = os.WriteFile(h.file(id), how(data), 0o600)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func TestFileOfNoRentalIsSetAside(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("good"))
		h.expect("good", rental.Running, "")
		h.leave()
		copied, err := os.ReadFile(h.file("good"))
		if err != nil {
			t.Fatal(err)
		}
		names := []string{h.file("other"), filepath.Join(h.dir, "other.rental")}
		for _, name := range names {
			if err := os.WriteFile(name, copied, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		h.boot()
		h.expect("good", rental.Running, "")
		if _, ok := h.book.Lookup("other"); ok {
			t.Error("a copy is taken for a rental")
		}
		for _, name := range names {
			if kept, err := os.ReadFile(name + ".corrupt"); err != nil || !bytes.Equal(kept, copied) {
				t.Errorf("set aside: %q, %v", kept, err)
			}
		}
	})
}

func TestRecordOfANewerVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	body := `{"version":2,"whatever":true}`
	line := fmt.Sprintf("%08x %s\n", crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli)), body)
	path := filepath.Join(dir, rental.FileName("r-1"))
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := rental.Open(rental.Options{Dir: dir, Log: quiet(t)})
	if err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("opened: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestFileNames(t *testing.T) {
	seen := map[string]rental.ID{}
	for _, id := range []rental.ID{"r-1", "R-1", "nul", "con.txt", "a..b", rental.ID(strings.Repeat("x", 63))} {
		name := strings.ToLower(rental.FileName(id))
		if other, ok := seen[name]; ok {
			t.Errorf("%s and %s share a file where case does not count", id, other)
		}
		seen[name] = id
		if len(name)+len(".corrupt") > 255 {
			t.Errorf("the name for %s is too long", id)
		}
	}
}

// TestFlippedBits damages the record of a rental, bit by bit, and checks that it is either known as
// what it was (or had been a moment before) or about to end, and that the other one is well.
func TestFlippedBits(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("bad"))
		h.accept(spec("good"))
		h.expect("good", rental.Running, "")
		h.leave()
		original, err := os.ReadFile(h.file("bad"))
		if err != nil {
			t.Fatal(err)
		}
		flips := len(original) * 8
		const stride = 13 // other bits at every run
		known, ended := 0, 0
		for i := rand.IntN(stride); i < flips; i += stride {
			data := bytes.Clone(original)
			data[i/8] ^= 1 << (i % 8)
			if err := os.WriteFile(h.file("bad"), data, 0o600); err != nil {
				t.Fatal(err)
			}
			book, err := rental.Open(rental.Options{Dir: h.dir, Log: silent})
			if err != nil {
				t.Fatalf("bit %d: %v", i, err)
			}
			if s, ok := book.Lookup("good"); !ok || s.State != rental.Running {
				t.Fatalf("bit %d: the other rental is %v", i, s.State)
			}
			s, ok := book.Lookup("bad")
			if !ok || s.ID != "bad" || s.State.Final() || s.Sequence < 6 {
				t.Fatalf("bit %d: the rental is now %+v", i, s)
			}
			if s.State == rental.Stopping {
				ended++
			} else if known++; s.Spec.Image != image {
				t.Fatalf("bit %d: the rental is now %+v", i, s)
			}
			if kept, err := os.ReadFile(h.file("bad")); err != nil || !bytes.Equal(kept, data) {
				t.Fatalf("bit %d: its file has changed: %v", i, err)
			}
		}
		if known == 0 || ended == 0 {
			t.Errorf("%d damaged records could be used and %d could not", known, ended)
		}
	})
}

// FuzzDamage damages a record of four states in two places and cuts it: what is read from it then is
// nothing, or one of the four.
func FuzzDamage(f *testing.F) {
	line := func(body string) []byte {
		return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli)), body)
	}
	whole := line(`{"version":1,"id":"r-1","spec":{"id":"r-1","image":"i"}}`)
	heading := len(whole)
	states := []rental.State{rental.Accepted, rental.Pulling, rental.Creating, rental.Starting}
	for i, state := range states {
		whole = append(whole, line(fmt.Sprintf(`{"state":%q,"sequence":%d,"reserved":257}`, state, i+1))...)
	}
	f.Add(uint16(0), byte(0), uint16(0), byte(0), uint16(0))
	f.Add(uint16(12), byte(1), uint16(0), byte(0), uint16(0))
	f.Add(uint16(len(whole)-2), byte(0x80), uint16(0), byte(0), uint16(7))
	f.Fuzz(func(t *testing.T, at1 uint16, mask1 byte, at2 uint16, mask2 byte, cut uint16) {
		data := bytes.Clone(whole)
		data[int(at1)%len(data)] ^= mask1
		data[int(at2)%len(data)] ^= mask2
		data = data[:len(data)-int(cut)%len(data)]
		id, state, clean, err := rental.DecodeFile(data)
		same := bytes.Equal(data, whole)
		switch {
		case err != nil && same:
			t.Errorf("an intact record is refused: %v", err)
		case err == nil && !bytes.Equal(data[:heading], whole[:heading]):
			t.Error("a damaged heading is believed")
		case err == nil && (id != "r-1" || !slices.Contains(states, state)):
			t.Errorf("read %q, %q", id, state)
		case err == nil && clean && !bytes.HasPrefix(whole, data):
			t.Errorf("a damaged record is called clean:\n%s", data)
		}
	})
}

func TestDiskFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		h := newHost(t)
		h.leave()
		h.open()
		opts := rental.Options{Dir: h.dir, Engine: h.engine, Relay: h.relay, Log: silent}
		var err error
		h.book, _, err = rental.OpenFaulty(opts, func(_, moment string) error {
			if full.Load() && moment == "torn" {
				return &os.PathError{Op: "write", Path: "secret/path", Err: syscall.ENOSPC}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		h.run()
		h.accept(spec("running"))
		h.expect("running", rental.Running, "")
		release := h.engine.Hold("Pull")
		h.accept(spec("starting"))
		h.expect("starting", rental.Pulling, "")

		full.Store(true)
		if _, err := h.book.Accept(spec("new")); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("accepted on a full disk: %v", err)
		}
		if _, ok := h.book.Lookup("new"); ok {
			t.Error("what could not be recorded is known")
		}
		release()
		if s := h.expect("starting", rental.Pulling, ""); !strings.Contains(s.Trouble, "no space left") || strings.Contains(s.Trouble, "secret") {
			t.Errorf("trouble %q", s.Trouble)
		}
		h.end("running", nil, 0)
		time.Sleep(time.Hour)
		if s := h.status("running"); s.State.Final() || s.Trouble == "" {
			t.Errorf("told %s, trouble %q, with nothing recorded", s.State, s.Trouble)
		}
		h.expectNothing("running") // a full disk does not keep a container alive
		h.expect("starting", rental.Pulling, "")

		full.Store(false)
		time.Sleep(6 * time.Second)
		h.expect("running", rental.Stopped, "")
		if s := h.expect("starting", rental.Running, ""); s.Trouble != "" {
			t.Errorf("trouble stays: %q", s.Trouble)
		}
		h.states("running")
		h.states("starting")

		h.leave()
		if data, err := os.ReadFile(h.file("starting")); err != nil {
			t.Error(err)
		} else if _, _, clean, err := rental.DecodeFile(data); err != nil || !clean {
			t.Errorf("the torn lines are still there: %v\n%s", err, data)
		}
		h.boot()
		h.expect("running", rental.Stopped, "")
		h.expect("starting", rental.Running, "")
		h.leave()
	})
}

// TestRefusedOrderLeavesNoTrace: an order whose record is there, but not for certain, was refused; the
// next agent must not carry it out.
func TestRefusedOrderLeavesNoTrace(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.leave()
		opts := rental.Options{Dir: h.dir, Engine: h.engine, Relay: h.relay, Log: silent}
		var err error
		h.book, _, err = rental.OpenFaulty(opts, func(act, moment string) error {
			if act == "replace" && moment == "after" {
				return syscall.EIO
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		h.run()
		if _, err := h.book.Accept(spec("r-1")); !errors.Is(err, syscall.EIO) {
			t.Errorf("accepted without a record: %v", err)
		}
		h.leave()
		h.boot()
		if s, ok := h.book.Lookup("r-1"); ok {
			t.Errorf("the next agent has taken the order on: it is %s", s.State)
		}
	})
}
