package rental_test

import (
	"testing"

	"github.com/distributedcompute/host-agent/core/rental"
)

func TestReservedVariables(t *testing.T) {
	for name, reserved := range map[string]bool{
		"NVIDIA_VISIBLE_DEVICES": true, "nvidia_visible_devices": true, "NVIDIA_DRIVER_CAPABILITIES": true,
		"NVIDIA_IMEX_CHANNELS": true, "NVIDIA_REQUIRE_CUDA": true, "LD_PRELOAD": true, "Ld_Audit": true, "LD_LIBRARY_PATH": true,
		"DOCKER_RESOURCE_GPU": true, "CUDA_COMPAT_TIMEOUT": true, "CUDA_COMPAT": true,
		"": false, "PATH": false, "NVIDIA": false, "MY_NVIDIA_KEY": false, "LDFLAGS": false, "CUDA_VISIBLE_DEVICES": false,
		"CUDA_HOME": false, "DOCKER_HOST": false, "HF_TOKEN": false,
	} {
		if got := rental.ReservedVariable(name); got != reserved {
			t.Errorf("ReservedVariable(%q) = %t", name, got)
		}
	}
}
