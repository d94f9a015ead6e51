//go:build !linux

package docker

import "time"

// processOf sees no process of a container.
func processOf(int) (process, bool) { return process{}, false }

// bootTime is not that of the virtual machine with the engine.
func bootTime() (time.Time, bool) { return time.Time{}, false }
