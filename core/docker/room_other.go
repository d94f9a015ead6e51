//go:build !linux

package docker

import "errors"

// spaceOf knows nothing: the engine's data is on the disk of a virtual machine.
func spaceOf(string) (space, error) { return space{}, errors.ErrUnsupported }
