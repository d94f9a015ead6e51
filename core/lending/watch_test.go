package lending

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

func TestWatch(t *testing.T) {
	for name, test := range map[string]struct {
		change func(b *box)
		want   rental.Code // "": it goes on
		says   string      // of what the owner is told; "": nothing
	}{
		"its own GPU": {change: func(b *box) { b.run("GPU-a", 7, container, 10) }},
		"another GPU": {change: func(b *box) { b.run("GPU-b", 7, container, 10) }, want: rental.CodeIsolation},
		"another GPU, to draw": {
			change: func(b *box) {
				b.set(func() { b.homes[7] = container })
				b.change("GPU-b", func(s *hardware.GPUState) { s.Graphics = []hardware.Process{{PID: 7}} })
			},
			want: rental.CodeIsolation,
		},
		"somebody else on another GPU": {change: func(b *box) { b.run("GPU-b", 7, "another container", 10) }},
		"somebody else on its GPU":     {change: func(b *box) { b.run("GPU-a", 7, "", 10) }, says: "process 7"},
		"the desktop on its GPU": {change: func(b *box) {
			b.change("GPU-a", func(s *hardware.GPUState) { s.Graphics = []hardware.Process{{PID: 9}} })
		}},
		"a process nobody knows":        {change: func(b *box) { b.run("GPU-a", 7, "", 10); b.set(func() { b.hidden[7] = true }) }},
		"one of its own, hidden":        {change: func(b *box) { b.run("GPU-b", 7, container, 10); b.set(func() { b.hidden[7] = true }) }},
		"one of its own that is gone":   {change: func(b *box) { b.run("GPU-b", 7, container, 10); b.set(func() { delete(b.homes, 7) }) }},
		"its GPU is lost":               {change: func(b *box) { b.set(func() { delete(b.states, "GPU-a") }) }, want: rental.CodeGPUUnavailable},
		"another GPU is lost":           {change: func(b *box) { b.set(func() { delete(b.states, "GPU-b") }) }},
		"a driver that does not answer": {change: func(b *box) { b.set(func() { b.hangs = true }) }},
		"on another GPU for a blink": {change: func(b *box) {
			b.run("GPU-b", 7, container, 10)
			time.AfterFunc(watchEvery+time.Second/2, func() { b.kill("GPU-b", false) })
		}},
		"its GPU is lost for a while":    {change: func(b *box) { blink(b) }},
		"everything as it should, later": {change: func(b *box) { b.run("GPU-a", 7, container, 10); b.run("GPU-b", 8, "", 10) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox("GPU-a", "GPU-b")
				d := open(t, t.TempDir(), b)
				lend(t, d, "r-1", gpuA)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- d.Watch(ctx, "r-1", []rental.GPU{gpuA}, container) }()
				synctest.Wait()
				test.change(b)
				time.Sleep(2*watchEvery + 2*time.Second)
				select {
				case err := <-done:
					if code(err) != test.want || test.want == "" {
						t.Errorf("ended with %v, want %q", err, test.want)
					}
				default:
					if test.want != "" {
						t.Errorf("goes on, want %s", test.want)
					}
				}
				troubles := d.Troubles()
				if (len(troubles) == 1) != (test.says != "") || len(troubles) == 1 && (troubles[0].Withheld || !strings.Contains(troubles[0].Message, test.says)) {
					t.Errorf("troubles %+v, want %q", troubles, test.says)
				}
				if test.says != "" {
					b.kill("GPU-a", false)
					time.Sleep(watchEvery)
					if troubles := d.Troubles(); len(troubles) != 0 {
						t.Errorf("troubles %+v, want none any more", troubles)
					}
				}
				cancel()
				b.set(func() { b.hangs = false })
				synctest.Wait()
			})
		})
	}
}

func blink(b *box) {
	was := b.states["GPU-a"]
	b.set(func() { delete(b.states, "GPU-a") })
	time.AfterFunc(watchEvery+goneFor/2, func() { b.set(func() { b.states["GPU-a"] = was }) })
}

// Without anything lent or withheld nobody asks the driver.
func TestIdleDeskAsksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox("GPU-a")
		d := open(t, t.TempDir(), b)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx, func() {}) }()
		time.Sleep(24 * time.Hour)
		if b.looks != 0 {
			t.Errorf("asked %d times", b.looks)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRunTellsChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox("GPU-a")
		d := open(t, t.TempDir(), b)
		var told atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = d.Run(ctx, func() { told.Add(1) }) }()
		synctest.Wait()
		b.run("GPU-a", 7, "", 10)
		if err := d.Lend(t.Context(), "r-1", []rental.GPU{gpuA}); code(err) != rental.CodeGPUUnavailable {
			t.Errorf("lending a busy GPU: %v", err)
		}
		if n := told.Load(); n != 1 {
			t.Errorf("told %d times of a GPU that is withheld, want once", n)
		}
		b.kill("GPU-a", false)
		time.Sleep(lookEvery + time.Second)
		if n := told.Load(); n != 2 || len(d.Troubles()) != 0 {
			t.Errorf("told %d times, troubles %+v; want twice and none", n, d.Troubles())
		}
		lend(t, d, "r-1", gpuA)
		cancel()
		synctest.Wait()
	})
}
