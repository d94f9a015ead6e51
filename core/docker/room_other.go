//go:build !linux

package docker

import "errors"

// roomOf knows nothing: the engine's data is on the disk of a virtual machine.
func roomOf(string) (free, total int64, err error) { return 0, 0, errors.ErrUnsupported }
