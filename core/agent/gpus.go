package agent

import (
	"context"
	"slices"
	"strings"

	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// The vendors of GPUs as surveys name them.
const (
	nvidia = "nvidia"
	amd    = "amd"
)

func hasGPU(host *Status, vendor string) bool {
	return host.Hardware != nil && slices.ContainsFunc(host.Hardware.GPUs, func(gpu hardware.GPU) bool { return gpu.Vendor == vendor })
}

// gpusOf are the GPUs an order can name.
func gpusOf(host *Status) []rental.GPU {
	if host.Hardware == nil {
		return nil
	}
	gpus := make([]rental.GPU, 0, len(host.Hardware.GPUs))
	for _, gpu := range host.Hardware.GPUs {
		gpus = append(gpus, rentable(gpu))
	}
	return gpus
}

// rentable is a GPU of this machine as rentals name it.
func rentable(gpu hardware.GPU) rental.GPU {
	r := rental.GPU{Index: gpu.Index, UUID: gpu.UUID, Parent: gpu.Parent, Render: gpu.Render}
	if gpu.Vendor == amd {
		r.Vendor = rental.AMD
	}
	return r
}

// clashes reports whether a rental that has not ended has this GPU, a part of it or what it is part of. One
// number is one GPU to the backend, so that it is not given twice either, whatever it stands for by now.
func clashes(s rental.Status, gpu rental.GPU) bool {
	return !s.State.Final() && slices.ContainsFunc(s.Spec.GPUs, func(taken rental.GPU) bool {
		return taken.Index == gpu.Index || taken.Overlaps(gpu)
	})
}

// noDesk stands in where nobody looks after GPUs.
type noDesk struct{}

func (noDesk) Run(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

func (noDesk) Troubles() []rental.GPUTrouble { return nil }

// withholds is the trouble for which a GPU may not be rented; nil: none.
func withholds(troubles []rental.GPUTrouble, gpu rental.GPU) *rental.GPUTrouble {
	at := slices.IndexFunc(troubles, func(t rental.GPUTrouble) bool { return t.Withheld && t.GPU.Overlaps(gpu) })
	if at < 0 {
		return nil
	}
	return &troubles[at]
}

// unwithheld leaves out the numbers of GPUs that are withheld.
func unwithheld(indices []int, survey *hardware.Survey, troubles []rental.GPUTrouble) []int {
	if survey == nil || len(troubles) == 0 {
		return indices
	}
	return slices.DeleteFunc(slices.Clone(indices), func(index int) bool {
		at := slices.IndexFunc(survey.GPUs, func(gpu hardware.GPU) bool { return gpu.Index == index })
		return at >= 0 && withholds(troubles, rentable(survey.GPUs[at])) != nil
	})
}

// gpuProblems say which GPUs are not offered, or not as they should be, and why.
func gpuProblems(s *Status) []Problem {
	var list []Problem
	for _, t := range s.GPUTroubles {
		code := "gpu_trouble"
		if t.Withheld {
			code = "gpu_withheld"
		}
		list = append(list, Problem{code, t.Message, t.Fix})
	}
	return list
}

// withheldWarnings tell the backend why a GPU is not offered. What else is wrong is the owner's concern.
func withheldWarnings(troubles []rental.GPUTrouble) []hardware.Gap {
	const most = 16 // a register takes 64 warnings of all kinds
	var warnings []hardware.Gap
	for _, t := range troubles {
		if t.Withheld && len(warnings) < most {
			warnings = append(warnings, hardware.Gap{Code: "gpu_withheld", Message: t.Message, Fix: t.Fix})
		}
	}
	return warnings
}

// withheldWords tells one set of withheld GPUs from another.
func withheldWords(troubles []rental.GPUTrouble) string {
	var words strings.Builder
	for _, warning := range withheldWarnings(troubles) {
		words.WriteString(warning.Message)
	}
	return words.String()
}
