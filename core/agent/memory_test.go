package agent

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
)

func openMemory(t *testing.T, dir string) *FileMemory {
	t.Helper()
	m, err := OpenMemory(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestFileMemory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	m := openMemory(t, dir)
	if got, err := m.Load(); err != nil || !cmp.Equal(got, Remembered{}) {
		t.Fatalf("an empty directory: %+v, %v", got, err)
	}
	want := Remembered{
		NodeID:   "node-1",
		Owner:    Wish{State: protocol.Paused, Reason: "user", Until: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)},
		Backend:  Wish{State: protocol.Draining, Reason: "backend", EndAt: time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)},
		Terms:    &RememberedTerms{Address: "relay:7000", Token: "secret", CAPEM: "PEM"},
		Proposal: &protocol.Offer{GPUIndices: []int{0}, CPUCores: 1.5},
		Network:  &hardware.Network{Server: "s", DownloadMbps: new(1.5)},
		Earned:   &protocol.Earnings{Currency: "USD", History: []protocol.DayAmount{{Day: "2030-01-01", Amount: "4.18"}}},
	}
	for range 2 {
		if err := m.Save(want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := openMemory(t, dir).Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("loaded (-saved +loaded):\n%s", diff)
	}
	if runtime.GOOS != "windows" {
		for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, memoryFile): 0o600} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, mode)
			}
		}
	}
}

func TestDamagedMemoryIsSetAside(t *testing.T) {
	for name, text := range map[string]string{
		"cut short":   `{"version":1,"node_id":"no`,
		"empty":       "",
		"not JSON":    "\x00\x00\x00",
		"newer":       `{"version":99,"node_id":"node-1"}`,
		"no version":  `{"node_id":"node-1"}`,
		"far too big": `{"version":1,"node_id":"` + strings.Repeat("x", maxMemoryBytes) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, memoryFile), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			m := openMemory(t, dir)
			if got, err := m.Load(); err == nil || !cmp.Equal(got, Remembered{}) {
				t.Fatalf("got %+v, %v; want nothing and an error", got, err)
			}
			kept, err := os.ReadFile(filepath.Join(dir, memoryDamaged))
			if err != nil || string(kept) != text {
				t.Errorf("set aside: %.40q, %v", kept, err)
			}
			if _, err := openMemory(t, dir).Load(); err == nil {
				t.Error("a second start does not know of the damage")
			}
			if err := m.Save(Remembered{NodeID: "node-2"}); err != nil {
				t.Fatal(err)
			}
			if got, err := m.Load(); err != nil || got.NodeID != "node-2" {
				t.Errorf("afterwards: %+v, %v", got, err)
			}
		})
	}
}

// Whoever can write into the directory cannot make the agent read elsewhere.
func TestMemoryFollowsNoLink(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(outside, []byte(`{"version":1,"node_id":"node-1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, memoryFile)); err != nil {
		t.Skip("this system makes no symbolic links:", err)
	}
	if _, err := openMemory(t, dir).Load(); err == nil {
		t.Error("a link out of the directory was followed")
	}
}

// A file that cannot be read is kept, whatever it may say.
func TestUnreadMemoryIsNotWrittenOver(t *testing.T) {
	dir := t.TempDir()
	file, aside := filepath.Join(dir, memoryFile), filepath.Join(dir, memoryDamaged)
	if err := os.Mkdir(file, 0o700); err != nil { // reading it fails, for whoever the tests run as
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(file, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(aside, nil, 0o600); err != nil { // no directory can take its place
		t.Fatal(err)
	}
	m := openMemory(t, dir)
	if got, err := m.Load(); err == nil || !cmp.Equal(got, Remembered{}) {
		t.Fatalf("got %+v, %v; want nothing and an error", got, err)
	}
	if err := m.Save(Remembered{NodeID: "node-2"}); err == nil || !strings.Contains(err.Error(), "setting aside node.json") {
		t.Errorf("saved over it: %v", err)
	}
	if err := os.Remove(aside); err != nil {
		t.Fatal(err)
	}
	if err := m.Save(Remembered{NodeID: "node-2"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(aside, "kept")); err != nil {
		t.Error(err)
	}
	if got, err := m.Load(); err != nil || got.NodeID != "node-2" {
		t.Errorf("afterwards: %+v, %v", got, err)
	}
}

// counted is a memory that counts what is written.
type counted struct {
	Memory
	saves atomic.Int32
}

func (c *counted) Save(r Remembered) error {
	c.saves.Add(1)
	return c.Memory.Save(r)
}

// What the backend says again costs no write.
func TestOnlyNewsIsWritten(t *testing.T) {
	onRig(t, func(t *testing.T, m *rig) {
		disk := &counted{Memory: m.state}
		m.state = disk
		s := m.boot()
		earned := func(total string) *protocol.Earnings {
			return &protocol.Earnings{
				Currency: "USD", Total: total, NextPayoutAt: new(time.Unix(1<<31, 0).UTC()), History: []protocol.DayAmount{{Day: "2030-01-01", Amount: "1"}},
			}
		}
		again := func(total string, cpus float64) {
			s.mustOK(&protocol.Registered{NodeID: "node-1", Earnings: earned(total), Relay: &protocol.Relay{Address: "relay.example.com:7000"}})
			s.mustOK(earned(total))
			s.mustOK(&protocol.SetOfferRequest{Offer: protocol.Offer{GPUIndices: []int{0}, CPUCores: cpus}})
		}
		again("12.30", 2)
		for _, change := range []struct {
			total string
			cpus  float64
			costs int32
		}{
			{"12.30", 2, 0},
			{"12.31", 2, 1},
			{"12.31", 3, 1},
		} {
			before := disk.saves.Load()
			again(change.total, change.cpus)
			if got := disk.saves.Load() - before; got != change.costs {
				t.Errorf("%+v: written %d times", change, got)
			}
			if status := s.Status(); status.Earnings.Total != change.total || status.Offer.CPUCores != change.cpus {
				t.Errorf("%+v: earnings %+v, offer %+v", change, status.Earnings, status.Offer)
			}
		}
		s.leave()
		s = m.boot() // what is on disk is the same as what the backend says
		before := disk.saves.Load()
		again("12.31", 3)
		if got := disk.saves.Load() - before; got != 0 {
			t.Errorf("after a restart: written %d times", got)
		}
		s.leave()
	})
}
