package hardware

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// gpuDriver is an open session with NVIDIA's driver, by its library or its program.
type gpuDriver interface {
	survey() gpuSurvey
	// read answers in the order of uuids; what is not known of a GPU is not known in its reading.
	// It reports false when no GPU answered, nor will.
	read(uuids []string) ([]gpuReading, bool)
	// inspect tells the state of GPUs, in the order of uuids.
	inspect(uuids []string) []GPUState
	// tenants lists the processes on every GPU there is, instances in place of a divided one.
	tenants() []Tenancy
	// restore sets a GPU's settings as they are wanted, as far as they can be set.
	restore(uuid string, wanted Settings) error
	close()
}

// gpuSurvey is the GPUs' part of a Survey.
type gpuSurvey struct {
	gpus          []GPU
	driverVersion *string
	cudaVersion   *string
	gaps          []Gap
	counted       int // NVIDIA GPUs the driver counts, lost ones too
}

// add puts a GPU at the end of the list, and a gap if it does not tell everything.
func (s *gpuSurvey) add(gpu GPU) {
	gpu.Vendor = cmp.Or(gpu.Vendor, nvidia)
	s.gpus = append(s.gpus, gpu)
	if missing := missingOf(gpu); missing != nil {
		s.gaps = append(s.gaps, gpuPartGap(gpu, missing))
	}
}

func (s *gpuSurvey) checkVersions() {
	if s.driverVersion == nil || s.cudaVersion == nil {
		s.gaps = append(s.gaps, versionsGap())
	}
}

// The vendors of GPUs.
const (
	nvidia = "nvidia"
	amd    = "amd"
)

// missingOf names what a GPU should tell and does not. The watts of an instance are those of its neighbours too.
func missingOf(gpu GPU) (missing []string) {
	for _, part := range []struct {
		missing bool
		name    string
	}{
		{gpu.VRAMTotalMB == nil || gpu.VRAMAvailableMB == nil, "memory"},
		{gpu.PCIBusID == nil, "PCI address"},
		{gpu.PowerLimitW == nil && gpu.Parent == "", "power limit"},
		{gpu.ComputeCapability == nil && gpu.Vendor == nvidia, "compute capability"},
		{gpu.PCIeGeneration == nil, "PCIe generation"},
		{gpu.PCIeWidth == nil, "PCIe width"},
	} {
		if part.missing {
			missing = append(missing, part.name)
		}
	}
	return missing
}

// gpuReading is what moves on one GPU.
type gpuReading struct {
	tempC, utilization, powerW, fanPercent value[float64]
	memoryUsedMB                           value[int64]
}

// value is a reading that may be missing; it saves an allocation for each that is not.
type value[T any] struct {
	v     T
	known bool
}

func (x *value[T]) pointer() *T {
	if !x.known {
		return nil
	}
	return &x.v
}

// surveyGPUs opens a session for itself, so that it works with or without a Meter. It waits behind
// a reading that was given up: that may be slow rather than hang, and a GPU not seen is not offered.
func surveyGPUs(ctx context.Context, o Options) gpuSurvey {
	s, answered := ask(ctx, surveyGPUsWithin, func() gpuSurvey {
		driver, err := openDriver(o)
		if err != nil {
			return gpuSurvey{gaps: []Gap{gapOf(err, o)}}
		}
		defer driver.close()
		return driver.survey()
	})
	if !answered {
		s.gaps = []Gap{driverHangsGap()}
	}
	s.addAMD(o)
	if s.gpus == nil {
		s.gpus = []GPU{}
	}
	return s
}

// openDriver prefers the library. Its program serves where the library cannot be loaded, but not
// where the library says that the driver is in trouble: then the program would say so too.
func openDriver(o Options) (gpuDriver, error) {
	driver, err := openNVML(o.NVMLPath)
	if !errors.Is(err, nvmlLibraryNotFound) || o.NVMLPath != "" {
		return driver, err
	}
	if driver, ok := findSMI(); ok {
		return driver, nil
	}
	return nil, err
}

func gapOf(err error, o Options) Gap {
	code, _ := errors.AsType[nvmlCode](err)
	switch {
	case code != nvmlLibraryNotFound:
		return nvmlGap(code)
	case o.NVMLPath != "":
		return nvmlPathGap(o.NVMLPath)
	case nvidiaOnBus(o):
		return nvmlMissingGap()
	default:
		return noGPUGap()
	}
}

const (
	readGPUsWithin  = time.Second
	reopenGPUsAfter = 30 * time.Second
)

// gpuSession is a meter's way to the driver: opened at the first reading, so that a machine without
// GPUs never loads the library, and anew when no GPU answers any more. Its fields belong to whoever
// has the driver's turn.
type gpuSession struct {
	options Options
	driver  gpuDriver // nil while there is none
	opened  time.Time // when it was last tried
}

// read is nil when the driver cannot be reached or does not answer in time; then uuids is still
// in use, and must never change.
func (g *gpuSession) read(uuids []string) []gpuReading {
	if len(uuids) == 0 || driverTurn.hanging() {
		return nil
	}
	readings, _ := ask(context.Background(), readGPUsWithin, func() []gpuReading {
		if !g.open() {
			return nil
		}
		readings, answered := g.driver.read(uuids)
		if !answered && time.Since(g.opened) >= reopenGPUsAfter {
			g.driver.close()
			g.driver = nil
		}
		return readings
	})
	return readings
}

func (g *gpuSession) open() bool {
	if g.driver != nil {
		return true
	}
	if !g.opened.IsZero() && time.Since(g.opened) < reopenGPUsAfter {
		return false
	}
	g.opened = time.Now()
	driver, err := openDriver(g.options)
	if err != nil {
		g.options.Log.Warn("GPUs cannot be read", "error", err)
		return false
	}
	g.driver = driver
	return true
}

func (g *gpuSession) close() {
	if driverTurn.hanging() {
		return
	}
	ask(context.Background(), readGPUsWithin, func() struct{} {
		if g.driver != nil {
			g.driver.close()
		}
		g.driver, g.opened = nil, time.Time{}
		return struct{}{}
	})
}
