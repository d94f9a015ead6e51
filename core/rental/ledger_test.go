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

	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/core/secret"
)

func (h *host) file(id rental.ID) string { return filepath.Join(h.dir, rental.FileName(id)) }

func TestLedgerKeepsSecretsToItself(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		s := spec("r-1")
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
		if data, _ := os.ReadFile(h.file("r-1")); bytes.Contains(data, []byte("hunter2")) {
			t.Error("the environment is kept after the end")
		}
		if _, err := h.book.Accept(s); err != nil {
			t.Errorf("the same order after that: %v", err)
		}
	})
}

func TestDamagedRecordIsSetAside(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.accept(spec("bad"))
		h.accept(spec("good"))
		h.expect("good", rental.Running, "")
		h.leave()
		for _, damage := range []string{"", "garbage\n"} {
			if err := os.WriteFile(h.file("bad"), []byte(damage), 0o600); err != nil {
				t.Fatal(err)
			}
			h.boot()
			h.expect("good", rental.Running, "")
			if _, ok := h.book.Lookup("bad"); ok {
				t.Error("a damaged record is believed")
			}
			kept, err := os.ReadFile(h.file("bad") + ".corrupt")
			if err != nil || string(kept) != damage {
				t.Errorf("set aside: %q, %v", kept, err)
			}
			h.leave()
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
// what it was (or had been a moment before) or set aside, and that the other one is well.
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
		known := 0
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
			if s, ok := book.Lookup("bad"); ok {
				known++
				if s.ID != "bad" || s.Spec.Image != image || s.State.Final() || s.Sequence < 6 {
					t.Fatalf("bit %d: the rental is now %+v", i, s)
				}
			} else if kept, err := os.ReadFile(h.file("bad") + ".corrupt"); err != nil || !bytes.Equal(kept, data) {
				t.Fatalf("bit %d: not set aside: %v", i, err)
			}
		}
		if known == 0 {
			t.Error("not one damaged record could be used")
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
