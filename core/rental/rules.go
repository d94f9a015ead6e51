package rental

import (
	"slices"
	"strings"
)

// reservedBeginnings are those of environment names that steer programs which run on the host, outside of the
// container, while it starts: NVIDIA's hook, the loader of its programs, and what stands for devices in a swarm.
var reservedBeginnings = []string{"NVIDIA_", "LD_", "DOCKER_RESOURCE_", "CUDA_COMPAT"}

// ReservedVariable reports whether an environment variable is the host's to set, in whatever case its name is written.
// A renter may not set one, and what an image has of them is taken away, but for a few that hand out nothing.
func ReservedVariable(name string) bool {
	upper := strings.ToUpper(name)
	return slices.ContainsFunc(reservedBeginnings, func(beginning string) bool { return strings.HasPrefix(upper, beginning) })
}
