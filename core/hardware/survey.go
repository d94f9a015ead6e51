package hardware

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/disk"
	"github.com/shirou/gopsutil/v3/host"
	"github.com/shirou/gopsutil/v3/mem"
)

// Options say where to look. The zero value is the whole machine with everything at its usual place.
type Options struct {
	DiskPath string       // whose disk counts, on Linux need not exist yet; default: the system's drive
	NVMLPath string       // NVIDIA's management library; default: where its driver puts it
	Log      *slog.Logger // default: none

	root string // a directory that holds proc, sys and etc in place of /; for tests
}

const (
	mib = 1 << 20
	gib = 1 << 30

	// surveyGPUsWithin is generous: a driver that keeps no state loads it for every card first.
	surveyGPUsWithin = 10 * time.Second
)

// Take looks at the whole machine. It takes some tens of milliseconds, with many GPUs a few
// seconds. It never fails: what could not be measured is nil and has a Gap.
func Take(ctx context.Context, o Options) Survey {
	o = o.withDefaults()
	s := Survey{
		System: System{OS: runtime.GOOS, DiskPath: o.DiskPath},
		Gaps:   []Gap{},
		At:     time.Now().UTC(),
	}
	// Each part fills its own fields of System, and its own slot here, so that gaps keep their order.
	parts := []func(context.Context, Options, *System) []Gap{
		surveyCPU, surveyRAM, surveyDisk, surveyOS, surveySensors,
	}
	gaps := make([][]Gap, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() { gaps[i] = part(ctx, o, &s.System) })
	}
	gpus := surveyGPUs(ctx, o)
	wg.Wait()

	s.GPUs, s.DriverVersion, s.CUDAVersion = gpus.gpus, gpus.driverVersion, gpus.cudaVersion
	for _, g := range append(gaps, gpus.gaps) {
		s.Gaps = append(s.Gaps, g...)
	}
	return s
}

func (o Options) withDefaults() Options {
	o.root = cmp.Or(o.root, "/")
	o.DiskPath = cmp.Or(o.DiskPath, systemDrive())
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func surveyCPU(ctx context.Context, _ Options, s *System) []Gap {
	if infos, err := cpu.InfoWithContext(ctx); err == nil && len(infos) > 0 {
		s.CPUModel = known(infos[0].ModelName)
	}
	s.CPUCores = counted(cpu.CountsWithContext(ctx, false))
	s.CPUThreads = counted(cpu.CountsWithContext(ctx, true))
	if s.CPUModel == nil || s.CPUCores == nil || s.CPUThreads == nil {
		return []Gap{cpuGap()}
	}
	return nil
}

func surveyRAM(ctx context.Context, _ Options, s *System) []Gap {
	memory, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil || memory.Total == 0 {
		return []Gap{ramGap()}
	}
	s.RAMTotalMB = new(int64(memory.Total / mib))
	s.RAMAvailableMB = new(int64(memory.Available / mib))
	return nil
}

func surveyDisk(ctx context.Context, o Options, s *System) []Gap {
	path, here := diskOf(o.DiskPath, runtime.GOOS)
	if !here {
		return []Gap{vmDiskGap(o.DiskPath)}
	}
	usage, err := disk.UsageWithContext(ctx, path)
	if err != nil || usage.Total == 0 {
		return []Gap{diskGap(o.DiskPath)}
	}
	s.DiskTotalGB = new(int64(usage.Total / gib))
	s.DiskAvailableGB = new(int64(usage.Free / gib))
	return nil
}

func surveyOS(ctx context.Context, o Options, s *System) []Gap {
	s.OSVersion = osVersion(ctx, o)
	if kernel, err := host.KernelVersionWithContext(ctx); err == nil {
		s.Kernel = known(kernel)
	}
	s.Virtualized = virtualized(ctx, o)
	if s.OSVersion == nil || s.Kernel == nil || s.Virtualized == nil {
		return []Gap{osGap()}
	}
	return nil
}

func surveySensors(ctx context.Context, o Options, _ *System) []Gap {
	if !hasCPUSensor(ctx, o) {
		return []Gap{sensorGap()}
	}
	return nil
}

// diskOf is path, or the nearest directory above it that is there: the disk path will be on. Only on
// Linux: elsewhere the container engine has a virtual machine, whose path need not be here, and what
// is above it here is another disk.
func diskOf(path, system string) (directory string, here bool) {
	for {
		_, err := os.Stat(path)
		parent := filepath.Dir(path)
		switch {
		case err == nil, parent == path:
			return path, true
		case system != "linux":
			return path, !errors.Is(err, fs.ErrNotExist)
		}
		path = parent
	}
}

// known is nil for a text that says nothing.
func known(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func counted(n int, err error) *int {
	if err != nil || n < 1 {
		return nil
	}
	return &n
}
