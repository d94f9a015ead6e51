//go:build !linux

package docker

import (
	"context"
	"errors"
)

// spaceOf knows nothing: the engine's data is on the disk of a virtual machine.
func spaceOf(string) (space, error) { return space{}, errors.ErrUnsupported }

// logsOf is nowhere on this machine.
func logsOf(string, string) string { return "" }

// countDirs leaves the counting to the engine.
func countDirs(context.Context, int64, ...string) (usage, error) {
	return usage{}, errors.ErrUnsupported
}

// openDeleted sees no process of a container.
func openDeleted([]string) map[string]usage { return nil }
