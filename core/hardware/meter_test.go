package hardware

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestMeterOutsideRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter(Options{})
		m.Use(Survey{GPUs: []GPU{{UUID: "a"}, {UUID: "b"}}})
		empty := func(when string) {
			t.Helper()
			got, err := json.Marshal(m.Sample())
			if err != nil {
				t.Fatal(err)
			}
			want := `{"cpu_temp_c":null,"cpu_utilization":null,"ram_usage_mb":null,"disk_usage_gb":null,` +
				`"net_rx_bytes":null,"net_tx_bytes":null,"gpu_temp_c":[null,null],"gpu_utilization":[null,null],` +
				`"gpu_memory_used_mb":[null,null],"gpu_power_w":[null,null],"gpu_fan_percent":[null,null],`
			if !strings.HasPrefix(string(got), want) {
				t.Errorf("%s Run:\n%s\nwant\n%s…", when, got, want)
			}
		}
		empty("before")
		stop := start(t, m)
		if m.Sample().RAMUsageMB == nil {
			t.Error("while Run runs: no memory usage")
		}
		stop()
		empty("after")
	})
}

// start runs m within a bubble, until the test's end or until stop is called.
func start(t *testing.T, m *Meter) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	synctest.Wait()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestSampleIsRepeatedWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter(Options{})
		start(t, m)
		sample := m.Sample()
		time.Sleep(sampleKeeps - time.Nanosecond)
		if again := m.Sample(); !again.At.Equal(sample.At) {
			t.Error("within a second: a new sample")
		}
		time.Sleep(time.Nanosecond)
		if again := m.Sample(); again.At.Equal(sample.At) {
			t.Error("after a second: the old sample")
		}
		m.Use(Survey{GPUs: []GPU{{UUID: "a"}}, System: System{DiskPath: "/"}})
		if again := m.Sample(); len(again.GPUTempC) != 1 {
			t.Error("after another survey: a sample of the old one")
		}
	})
}

func TestSampleForMany(t *testing.T) {
	m := NewMeter(Options{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				m.Use(Survey{GPUs: make([]GPU, i%2), System: System{DiskPath: "/"}})
				if n := len(m.Sample().GPUPowerW); n > 1 {
					t.Errorf("%d GPUs, want 0 or 1", n)
				}
			}
			stop()
		})
	}
	wg.Wait()
}

// forget makes the next sample a new one.
func (m *Meter) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = Sample{}
}

func TestSampleAllocatesLittle(t *testing.T) {
	m := NewMeter(Options{})
	m.swap(openSystem(m.options))
	defer func() { m.swap(nil).close() }()
	if n := testing.AllocsPerRun(100, func() { m.forget(); m.Sample() }); n > 20 {
		t.Errorf("%.0f allocations, want at most 20", n)
	}
}
