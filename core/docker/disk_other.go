//go:build !linux

package docker

import (
	"context"
	"errors"
)

// logsOf is nowhere on this machine.
func logsOf(string, string) string { return "" }

// countDirs leaves the counting to the engine.
func countDirs(context.Context, int64, ...string) (usage, error) {
	return usage{}, errors.ErrUnsupported
}

// openDeleted sees no process of a container.
func openDeleted([]string) map[string]usage { return nil }
