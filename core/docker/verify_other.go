//go:build !linux

package docker

import "github.com/distributedcompute/host-agent/core/rental"

// kernelTraits has nothing to look at: containers run in a virtual machine.
func kernelTraits(int, string, []rental.GPU) error { return nil }
