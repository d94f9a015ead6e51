//go:build !linux

package hardware

import (
	"context"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/disk"
	"github.com/shirou/gopsutil/v3/mem"
	"github.com/shirou/gopsutil/v3/net"
)

// systemReader reads through gopsutil, which is cheap enough here.
type systemReader struct {
	times *cpu.TimesStat // at the last reading
}

func openSystem(Options) *systemReader {
	s := &systemReader{}
	s.load()
	return s
}

func (s *systemReader) close() {}

func (s *systemReader) read(diskPath string, sample *Sample) {
	ctx := context.Background()
	sample.CPUUtilization = s.load()
	sample.CPUTempC = cpuTemperature(ctx)
	if memory, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		sample.RAMUsageMB = new(int64((memory.Total - memory.Available) / mib))
	}
	if usage, err := disk.UsageWithContext(ctx, diskPath); err == nil {
		sample.DiskUsageGB = new(int64(usage.Used / gib))
	}
	sample.NetRxBytes, sample.NetTxBytes = traffic(ctx)
}

// load is that of all threads since the last call.
func (s *systemReader) load() *float64 {
	times, err := cpu.Times(false)
	if err != nil || len(times) == 0 {
		return nil
	}
	before, now := s.times, times[0]
	s.times = &now
	if before == nil {
		return nil
	}
	total := allTime(now) - allTime(*before)
	if total <= 0 {
		return nil
	}
	idle := now.Idle - before.Idle
	return new(min(max(100*(total-idle)/total, 0), 100))
}

func allTime(t cpu.TimesStat) float64 {
	return t.User + t.System + t.Idle + t.Nice + t.Irq + t.Softirq + t.Steal
}

func traffic(ctx context.Context) (received, sent *uint64) {
	counters, err := net.IOCountersWithContext(ctx, true)
	if err != nil {
		return nil, nil
	}
	var rx, tx uint64
	var any bool
	for _, c := range counters {
		if isPhysical(c.Name) {
			rx, tx, any = rx+c.BytesRecv, tx+c.BytesSent, true
		}
	}
	if !any {
		return nil, nil
	}
	return &rx, &tx
}
