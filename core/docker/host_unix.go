//go:build unix

package docker

import (
	"os"
	"strings"
)

// systemHost is where an engine listens that the whole system shares.
const systemHost = "unix:///var/run/docker.sock"

// socketPath is the path of a unix host.
func socketPath(host string) string { return strings.TrimPrefix(host, "unix://") }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
