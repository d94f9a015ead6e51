package agent

import (
	"slices"

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
