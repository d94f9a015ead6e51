package hardware

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
)

// A sample this young is handed out again rather than taken anew.
const sampleKeeps = time.Second

// Meter reads the machine's moving values when asked, and sleeps in between: it has no clock of
// its own. All methods may be called at any time and from anywhere.
type Meter struct {
	options Options

	mu       sync.Mutex
	system   *systemReader // nil while Run does not run
	gpus     gpuSession
	diskPath string
	uuids    []string // of the survey's GPUs, in their order
	nvidia   []string // those of them NVIDIA's driver is asked for
	renders  []string // in the order of uuids, "" where it is NVIDIA's
	last     Sample   // zero: take a new one
}

// NewMeter returns a meter that measures nothing before Run.
func NewMeter(o Options) *Meter {
	o = o.withDefaults()
	m := &Meter{options: o, gpus: gpuSession{options: o}}
	m.diskPath, _ = diskOf(o.DiskPath, runtime.GOOS)
	return m
}

// Run holds what the meter reads from open until ctx ends; then it returns nil. Outside Run every
// value of a sample is nil.
func (m *Meter) Run(ctx context.Context) error {
	m.swap(openSystem(m.options))
	<-ctx.Done()
	m.swap(nil).close()
	m.gpus.close()
	return nil
}

func (m *Meter) swap(system *systemReader) (old *systemReader) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, m.system, m.last = m.system, system, Sample{}
	return old
}

// Use tells the meter which disk counts, and which GPUs in what order.
func (m *Meter) Use(survey Survey) {
	uuids, renders, nvidia := make([]string, len(survey.GPUs)), make([]string, len(survey.GPUs)), []string(nil)
	for i, gpu := range survey.GPUs {
		uuids[i], renders[i] = gpu.UUID, gpu.Render
		if gpu.Render == "" {
			nvidia = append(nvidia, gpu.UUID)
		}
	}
	diskPath, _ := diskOf(survey.System.DiskPath, runtime.GOOS) // one that is not here reads as nothing
	m.mu.Lock()
	defer m.mu.Unlock()
	if diskPath == m.diskPath && slices.Equal(uuids, m.uuids) && slices.Equal(renders, m.renders) {
		return
	}
	m.diskPath, m.uuids, m.nvidia, m.renders, m.last = diskPath, uuids, nvidia, renders, Sample{}
}

// Sample takes a reading, or repeats the last one if that is less than a second old. It takes well
// under a millisecond, and about a second at worst, when the GPUs' driver does not answer.
func (m *Meter) Sample() Sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now().UTC()
	if !m.last.At.IsZero() && now.Sub(m.last.At) < sampleKeeps {
		return m.last
	}
	sample := Sample{At: now}
	var readings []gpuReading
	if m.system != nil {
		m.system.read(m.diskPath, &sample)
		readings = m.withAMD(m.gpus.read(m.nvidia))
	}
	sample.fillGPUs(len(m.uuids), readings)
	m.last = sample
	return sample
}

// withAMD puts the readings of AMD's GPUs among those of NVIDIA's, which are nil where none could be read.
func (m *Meter) withAMD(read []gpuReading) []gpuReading {
	if len(m.nvidia) == len(m.uuids) {
		return read
	}
	all := make([]gpuReading, len(m.uuids))
	at := 0
	for i, render := range m.renders {
		switch {
		case render != "":
			all[i] = readAMD(m.options, render)
		case at < len(read):
			all[i] = read[at]
			at++
		}
	}
	return all
}

// fillGPUs makes every array n long; readings is as long, or nil if there are none.
func (s *Sample) fillGPUs(n int, readings []gpuReading) {
	floats := make([]*float64, 4*n)
	s.GPUTempC, s.GPUUtilization = floats[:n:n], floats[n:2*n:2*n]
	s.GPUPowerW, s.GPUFanPercent = floats[2*n:3*n:3*n], floats[3*n:]
	s.GPUMemoryUsedMB = make([]*int64, n)
	for i := range readings {
		r := &readings[i]
		s.GPUTempC[i], s.GPUUtilization[i] = r.tempC.pointer(), r.utilization.pointer()
		s.GPUPowerW[i], s.GPUFanPercent[i] = r.powerW.pointer(), r.fanPercent.pointer()
		s.GPUMemoryUsedMB[i] = r.memoryUsedMB.pointer()
	}
}
