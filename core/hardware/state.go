package hardware

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// GPUState is what of a GPU a program on it can have changed, as seen at one moment. A nil value could not be
// read.
type GPUState struct {
	UUID string `json:"uuid"`
	// Lost is set when the driver knows no such GPU: it has fallen off the bus, or the instance is gone.
	Lost bool `json:"lost,omitempty"`
	// Divided is set when the GPU has been divided into instances since it was surveyed.
	Divided    bool      `json:"divided,omitempty"`
	Compute    []Process `json:"-"`                     // those that compute; nil where it is not known which
	Graphics   []Process `json:"-"`                     // those that draw, which may compute too
	MemoryUsed *int64    `json:"memory_used,omitempty"` // bytes
	Memory     *int64    `json:"memory,omitempty"`      // bytes, all there is
	Bus        string    `json:"bus,omitempty"`         // PCI address, where errors in the system's log name it
	Settings   Settings  `json:"settings"`
	ECCErrors  *uint64   `json:"ecc_errors,omitempty"` // uncorrected ones since the driver was loaded
}

// Settings are those of a GPU that outlast the program which has changed them.
type Settings struct {
	PowerLimit    *uint32 `json:"power_limit,omitempty"` // mW
	ComputeMode   *uint32 `json:"compute_mode,omitempty"`
	Persistence   *uint32 `json:"persistence,omitempty"`
	GraphicsClock *uint32 `json:"graphics_clock,omitempty"` // MHz, set for applications
	MemoryClock   *uint32 `json:"memory_clock,omitempty"`   // MHz, set for applications
	ECC           *bool   `json:"ecc,omitempty"`            // takes a restart to change
}

// Process is one that uses a GPU.
type Process struct {
	PID    int
	Memory *int64 // bytes of the GPU's; nil: the driver cannot tell
}

// Tenancy says which processes use one GPU.
type Tenancy struct {
	UUID              string
	Compute, Graphics []Process // one that does both may be in both
}

// Differ names what is set otherwise in now; what could not be read at one of the two times is left out.
func (s Settings) Differ(now Settings) (names []string) {
	for _, setting := range []struct {
		name string
		is   bool
	}{
		{"power limit", differs(s.PowerLimit, now.PowerLimit)},
		{"compute mode", differs(s.ComputeMode, now.ComputeMode)},
		{"persistence mode", differs(s.Persistence, now.Persistence)},
		{"clocks", differs(s.GraphicsClock, now.GraphicsClock) || differs(s.MemoryClock, now.MemoryClock)},
		{"ECC mode", differs(s.ECC, now.ECC)},
	} {
		if setting.is {
			names = append(names, setting.name)
		}
	}
	return names
}

func differs[T comparable](a, b *T) bool { return a != nil && b != nil && *a != *b }

// errSilent is what a question to a driver that does not answer in time comes to.
var errSilent = errors.New("the GPUs' driver does not answer")

// inspectWithin bounds one question about GPUs' state. Where the driver is loaded for each question that takes
// about a second per GPU.
const inspectWithin = 10 * time.Second

// Inspect tells the state of these GPUs, in their order; of each, UUID and Render count. An error says
// that the driver could not be asked at all.
func Inspect(ctx context.Context, o Options, gpus []GPU) ([]GPUState, error) {
	o = o.withDefaults()
	return withDriver(ctx, o, gpus, func(driver gpuDriver) []GPUState {
		states := make([]GPUState, len(gpus))
		var places []int
		var uuids []string
		for i, gpu := range gpus {
			if gpu.Render != "" {
				states[i] = inspectAMD(o, gpu)
				continue
			}
			places, uuids = append(places, i), append(uuids, gpu.UUID)
		}
		if driver != nil {
			for i, state := range driver.inspect(uuids) {
				states[places[i]] = state
			}
		}
		return states
	})
}

// Tenants lists the processes on every GPU of the machine that the driver of one of gpus knows: on those
// that are not rented, too.
func Tenants(ctx context.Context, o Options, gpus []GPU) ([]Tenancy, error) {
	o = o.withDefaults()
	return withDriver(ctx, o, gpus, func(driver gpuDriver) []Tenancy {
		all := tenantsAMD(o)
		if driver != nil {
			all = append(all, driver.tenants()...)
		}
		return all
	})
}

// Restore sets what of a GPU's settings differs from what is wanted, as far as this agent's user may. Whether
// it has come about, another look tells.
func Restore(ctx context.Context, o Options, gpu GPU, wanted Settings) error {
	o = o.withDefaults()
	failure, err := withDriver(ctx, o, []GPU{gpu}, func(driver gpuDriver) error {
		if driver == nil {
			return restoreAMD(o, gpu, wanted)
		}
		return driver.restore(gpu.UUID, wanted)
	})
	if err != nil {
		return err
	}
	if failure != nil {
		return fmt.Errorf("restoring the settings of GPU %s: %w", gpu.UUID, failure)
	}
	return nil
}

// withDriver puts a question to the driver within a bound. NVIDIA's is opened only when one of gpus is its own.
func withDriver[T any](ctx context.Context, o Options, gpus []GPU, question func(gpuDriver) T) (T, error) {
	type answer struct {
		value T
		err   error
	}
	a, answered := ask(ctx, inspectWithin, func() (a answer) {
		var driver gpuDriver
		for _, gpu := range gpus {
			if gpu.Render != "" {
				continue
			}
			var err error
			if driver, err = openDriver(o); err != nil {
				a.err = fmt.Errorf("asking the GPUs' driver: %w", err)
				return a
			}
			defer driver.close()
			break
		}
		a.value = question(driver)
		return a
	})
	if !answered {
		return a.value, errSilent
	}
	return a.value, a.err
}
