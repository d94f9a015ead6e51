package docker

import (
	"os"
	"strconv"
	"strings"

	"github.com/distributedcompute/host-agent/core/rental"
)

// KernelTraits is the look at a container's first process.
func KernelTraits(pid int, containerID string, gpus []rental.GPU) error {
	return kernelTraits(pid, containerID, gpus)
}

// Zombie reports whether a process has ended and not been collected.
func Zombie(pid int) bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	return err == nil && strings.Contains(string(status), "State:\tZ")
}
