package lending

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// What a rental does to its GPU, and what becomes of the GPU afterwards.
func TestReturn(t *testing.T) {
	for name, test := range map[string]struct {
		rented   func(b *box) // what happens while it is lent and after it
		after    func(b *box) // what happens later
		withheld string       // part of why; "": it can be rented again at once
		within   time.Duration
		clears   bool // once after has happened
	}{
		"nothing done":   {},
		"used and freed": {rented: func(b *box) { b.run("GPU-a", 7, container, 2048); b.kill("GPU-a", false) }},
		"a process stays": {
			rented:   func(b *box) { b.run("GPU-a", 7, "", 2048) },
			after:    func(b *box) { b.kill("GPU-a", false) },
			withheld: "process 7", within: waitBound, clears: true,
		},
		"a process that the driver lists is dead": {rented: func(b *box) {
			b.run("GPU-a", 7, container, 0)
			delete(b.homes, 7)
		}},
		"a process takes its time": {rented: func(b *box) {
			b.run("GPU-a", 7, container, 2048)
			time.AfterFunc(5*time.Second, func() { b.kill("GPU-a", false) })
		}, within: 6 * time.Second},
		"memory that nobody holds": {
			rented:   func(b *box) { b.run("GPU-a", 7, container, 2048); b.kill("GPU-a", true) },
			after:    func(b *box) { b.change("GPU-a", func(s *hardware.GPUState) { s.MemoryUsed = new(int64(300 * mib)) }) },
			withheld: "2348 MiB", within: waitBound, clears: true,
		},
		"memory within what varies": {rented: func(b *box) {
			b.change("GPU-a", func(s *hardware.GPUState) { s.MemoryUsed = new(int64(700 * mib)) }) // 2 % of 24 GiB are 491 MiB
		}},
		"the desktop has grown": {rented: func(b *box) {
			b.change("GPU-a", func(s *hardware.GPUState) {
				s.MemoryUsed = new(int64(4 * gib))
				s.Graphics = []hardware.Process{{PID: 9, Memory: new(int64(4*gib - 300*mib))}}
			})
		}},
		"the desktop computes as well": {rented: func(b *box) {
			b.homes[9] = ""
			b.change("GPU-a", func(s *hardware.GPUState) {
				s.Graphics = []hardware.Process{{PID: 9}}
				s.Compute = []hardware.Process{{PID: 9}}
			})
		}},
		"settings changed": {rented: func(b *box) {
			b.change("GPU-a", func(s *hardware.GPUState) { s.Settings.PowerLimit = new(uint32(200_000)) })
		}},
		"settings that cannot be set back": {
			rented: func(b *box) {
				b.locked = true
				b.change("GPU-a", func(s *hardware.GPUState) { s.Settings.ComputeMode = new(uint32(3)) })
			},
			after: func(b *box) {
				b.change("GPU-a", func(s *hardware.GPUState) { s.Settings.ComputeMode = new(uint32(0)) })
			},
			withheld: "compute mode", clears: true,
		},
		"memory errors": {
			rented:   func(b *box) { b.change("GPU-a", func(s *hardware.GPUState) { s.ECCErrors = new(uint64(2)) }) },
			after:    func(b *box) { b.change("GPU-a", func(s *hardware.GPUState) { s.ECCErrors = new(uint64(0)) }) }, // reset
			withheld: "2 uncorrectable memory errors", clears: true,
		},
		"a fault of the GPU": {
			rented:   func(b *box) { b.set(func() { b.xids = append(b.xids, hardware.Xid{Bus: "0000:01:00", Number: 79}) }) },
			withheld: "Xid 79",
		},
		"a fault of another GPU": {rented: func(b *box) {
			b.set(func() { b.xids = append(b.xids, hardware.Xid{Bus: "0000:03:00", Number: 79}) })
		}},
		"a fault of the program": {rented: func(b *box) {
			b.set(func() { b.xids = append(b.xids, hardware.Xid{Bus: "0000:01:00", Number: 31}) })
		}},
		"lost": {
			rented:   func(b *box) { b.set(func() { delete(b.states, "GPU-a") }) },
			after:    func(b *box) { b.set(func() { b.states["GPU-a"] = newBox("GPU-a").states["GPU-a"] }) },
			withheld: "fallen off the bus", clears: true,
		},
		"a driver that hangs": {
			rented:   func(b *box) { b.set(func() { b.hangs = true }) },
			after:    func(b *box) { b.set(func() { b.hangs = false }) },
			withheld: "does not answer", within: returnBound, clears: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox("GPU-a", "GPU-b")
				b.xids = []hardware.Xid{{Bus: "0000:01:00", Number: 48}} // long ago
				dir := t.TempDir()
				d := open(t, dir, b)
				gpus := []rental.GPU{gpuA, gpuB}
				if err := d.Lend(t.Context(), "r-1", gpus); err != nil {
					t.Fatal(err)
				}
				if test.rented != nil {
					test.rented(b)
				}
				began := time.Now()
				if err := d.Return(t.Context(), "r-1", gpus); err != nil {
					t.Fatal(err)
				}
				if took, most := time.Since(began), max(test.within+2*time.Second, 2*time.Second); took > min(most, returnBound) {
					t.Errorf("taking the GPU back took %v", took)
				}
				expectTrouble(t, d, test.withheld)
				if test.withheld == "" {
					if err := d.Lend(t.Context(), "r-2", gpus); err != nil {
						t.Errorf("lending it again: %v", err)
					}
					return
				}
				if err := d.Lend(t.Context(), "r-2", []rental.GPU{gpuA}); code(err) != rental.CodeGPUUnavailable || !strings.Contains(err.Error(), test.withheld) {
					t.Errorf("lending a withheld GPU: %v", err)
				}
				d.Close()
				d = open(t, dir, b) // the next agent knows it too
				expectTrouble(t, d, test.withheld)

				ctx, stop := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- d.Run(ctx, func() {}) }()
				time.Sleep(3 * lookEvery)
				expectTrouble(t, d, test.withheld)
				if test.after != nil {
					test.after(b)
				}
				time.Sleep(2 * lookEvery)
				if test.clears {
					expectTrouble(t, d, "")
				} else {
					expectTrouble(t, d, test.withheld)
				}
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
				d.Close()
				b.boot = "boot-2"
				expectTrouble(t, open(t, dir, b), "")
			})
		})
	}
}

// expectTrouble wants GPU 0 withheld, for a reason that says so, and nothing else; "": nothing at all.
func expectTrouble(t *testing.T, d *Desk, says string) {
	t.Helper()
	troubles := d.Troubles()
	switch {
	case says == "" && len(troubles) > 0:
		t.Errorf("troubles %+v, want none", troubles)
	case says == "":
	case says == "does not answer" && len(troubles) == 2: // nothing is known of either
	case len(troubles) != 1 || troubles[0].GPU != gpuA || !troubles[0].Withheld || !strings.Contains(troubles[0].Message, says) || troubles[0].Fix == "":
		t.Errorf("troubles %+v, want GPU 0 withheld with %q", troubles, says)
	}
}

func TestLendRefuses(t *testing.T) {
	part := rental.GPU{Index: 8, UUID: "MIG-1", Parent: "GPU-a"}
	for name, test := range map[string]struct {
		prepare  func(t *testing.T, d *Desk, b *box)
		gpu      rental.GPU
		says     string
		withheld bool
	}{
		"lent already":         {func(t *testing.T, d *Desk, _ *box) { lend(t, d, "r-0", gpuA) }, gpuA, "another rental", false},
		"its instance is lent": {func(t *testing.T, d *Desk, _ *box) { lend(t, d, "r-0", part) }, gpuA, "another rental", false},
		"its whole is lent":    {func(t *testing.T, d *Desk, _ *box) { lend(t, d, "r-0", gpuA) }, part, "another rental", false},
		"somebody computes":    {func(_ *testing.T, _ *Desk, b *box) { b.run("GPU-a", 7, "", 10) }, gpuA, "process 7", true},
		"lost":                 {func(_ *testing.T, _ *Desk, b *box) { delete(b.states, "GPU-a") }, gpuA, "fallen off the bus", true},
		"the driver is silent": {func(_ *testing.T, _ *Desk, b *box) { b.hangs = true }, gpuA, "does not answer", false},
		"the instance is gone": {func(_ *testing.T, _ *Desk, b *box) { delete(b.states, "MIG-1") }, part, "divided anew", false},
		"divided since": {func(_ *testing.T, _ *Desk, b *box) {
			b.change("GPU-a", func(s *hardware.GPUState) { s.Divided = true })
		}, gpuA, "divided", false},
		"a second GPU computes": {func(_ *testing.T, _ *Desk, b *box) { b.run("GPU-b", 8, "", 10) }, gpuB, "process 8", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox("GPU-a", "GPU-b", "MIG-1")
				d := open(t, t.TempDir(), b)
				test.prepare(t, d, b)
				err := d.Lend(t.Context(), "r-1", []rental.GPU{test.gpu})
				if code(err) != rental.CodeGPUUnavailable || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got %v, want gpu_unavailable with %q", err, test.says)
				}
				if troubles := d.Troubles(); (len(troubles) == 1) != test.withheld {
					t.Errorf("troubles %+v", troubles)
				}
			})
		})
	}
}

func lend(t *testing.T, d *Desk, id rental.ID, gpus ...rental.GPU) {
	t.Helper()
	if err := d.Lend(t.Context(), id, gpus); err != nil {
		t.Fatal(err)
	}
}

// Two instances of one GPU are lent apart, the same rental gets its own again, and who ends frees its own.
func TestLendApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox("MIG-1", "MIG-2")
		d := open(t, t.TempDir(), b)
		one, two := rental.GPU{Index: 8, UUID: "MIG-1", Parent: "GPU-a"}, rental.GPU{Index: 9, UUID: "MIG-2", Parent: "GPU-a"}
		lend(t, d, "r-1", one)
		lend(t, d, "r-2", two)
		b.run("MIG-1", 7, container, 100)
		lend(t, d, "r-1", one) // after a restart of the agent, say
		b.kill("MIG-1", false)
		if err := d.Return(t.Context(), "r-1", []rental.GPU{one}); err != nil {
			t.Fatal(err)
		}
		lend(t, d, "r-3", one)
		if err := d.Lend(t.Context(), "r-4", []rental.GPU{two}); code(err) != rental.CodeGPUUnavailable {
			t.Errorf("lending what r-2 has: %v", err)
		}
	})
}

// What was noted before an agent ended is compared with by the next; after a restart of the machine it is not.
func TestReturnToTheNextAgent(t *testing.T) {
	for boot, want := range map[string]int{"boot-1": 1, "boot-2": 0} {
		t.Run(boot, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, dir := newBox("GPU-a"), t.TempDir()
				d := open(t, dir, b)
				lend(t, d, "r-1", gpuA)
				d.Close()
				if info, err := os.Stat(filepath.Join(dir, fileName)); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("the file: %v, %v", info, err)
				}
				b.boot, b.locked = boot, true
				b.change("GPU-a", func(s *hardware.GPUState) { s.Settings.PowerLimit = new(uint32(1)) })
				d = open(t, dir, b)
				if err := d.Return(t.Context(), "r-1", []rental.GPU{gpuA}); err != nil {
					t.Fatal(err)
				}
				if troubles := d.Troubles(); len(troubles) != want {
					t.Errorf("troubles %+v, want %d", troubles, want)
				}
			})
		})
	}
}

// An agent that leaves does not take a GPU back by halves.
func TestReturnInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := newBox("GPU-a"), t.TempDir()
		d := open(t, dir, b)
		lend(t, d, "r-1", gpuA)
		b.run("GPU-a", 7, container, 10)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := d.Return(ctx, "r-1", []rental.GPU{gpuA}); err == nil {
			t.Error("returned though the agent was leaving")
		}
		if err := d.Lend(t.Context(), "r-2", []rental.GPU{gpuA}); code(err) != rental.CodeGPUUnavailable {
			t.Errorf("lending what has not come back: %v", err)
		}
		if troubles := d.Troubles(); len(troubles) != 0 {
			t.Errorf("troubles %+v, want none yet", troubles)
		}
	})
}

func TestDamagedFile(t *testing.T) {
	for name, content := range map[string]string{
		"no JSON":        "{",
		"half of it":     `{"version": 1, "loans": {"r-1": null}}`,
		"a newer one":    `{"version": 2}`,
		"no name":        `{"version": 1, "loans": {"../x": {}}}`,
		"something else": `[1, 2]`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, fileName), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			d := open(t, dir, newBox("GPU-a"))
			troubles := d.Troubles()
			if len(troubles) != 1 || troubles[0].Withheld || !strings.Contains(troubles[0].Message, "damaged") {
				t.Errorf("troubles %+v, want it told", troubles)
			}
			aside, err := os.ReadFile(filepath.Join(dir, fileDamaged))
			if diff := cmp.Diff(content, string(aside)); diff != "" || err != nil {
				t.Errorf("set aside, error %v (-want +got):\n%s", err, diff)
			}
			lend(t, d, "r-1", gpuA)
		})
	}
}

// What was lent to a rental whose record is lost comes back once a look has found nothing wrong; after a restart of
// the machine there is nothing to look for.
func TestReclaim(t *testing.T) {
	for boot, withheld := range map[string]int{"boot-1": 1, "boot-2": 0} {
		t.Run(boot, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, dir := newBox("GPU-a", "GPU-b"), t.TempDir()
				d := open(t, dir, b)
				lend(t, d, "r-1", gpuA)
				lend(t, d, "r-2", gpuB)
				d.Close()
				b.boot = boot
				d = open(t, dir, b)
				d.Reclaim(func(id rental.ID) bool { return id == "r-2" })
				if got := d.Troubles(); len(got) != withheld || withheld > 0 && (!got[0].Withheld || got[0].GPU != gpuA) {
					t.Errorf("troubles %+v, want %d", got, withheld)
				}
				if err := d.Lend(t.Context(), "r-3", []rental.GPU{gpuB}); code(err) != rental.CodeGPUUnavailable {
					t.Errorf("what is still lent was lent again: %v", err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), lookEvery+time.Second)
				defer cancel()
				if err := d.Run(ctx, func() {}); err != nil {
					t.Error(err)
				}
				lend(t, d, "r-3", gpuA)
			})
		})
	}
}
