package docker

import (
	"context"
	"os"
	"strconv"
	"strings"

	"github.com/distributedcompute/host-agent/core/rental"
)

// KernelTraits is the look at a container's first process.
func KernelTraits(pid int, containerID string, gpus []rental.GPU) error {
	return kernelTraits(pid, containerID, gpus)
}

// OfferCDI has the engine be taken for one that knows descriptions of devices.
func (e *Engine) OfferCDI(ctx context.Context) error {
	known, err := e.knownFacts(ctx)
	known.OffersCDI = true
	e.facts.Store(&known)
	return err
}

// Zombie reports whether a process has ended and not been collected.
func Zombie(pid int) bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	return err == nil && strings.Contains(string(status), "State:\tZ")
}
