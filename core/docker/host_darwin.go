package docker

import (
	"os"
	"path/filepath"
)

const (
	howToInstall = "Install Docker Desktop: https://docs.docker.com/desktop/"
	howToStart   = "Start Docker Desktop."
	howToPermit  = "Let this user use Docker in the settings of Docker Desktop."
)

// defaultHost is the system's socket or, where Docker Desktop made none, the user's own.
func defaultHost() string {
	if exists(socketPath(systemHost)) {
		return systemHost
	}
	if home, err := os.UserHomeDir(); err == nil {
		if own := filepath.Join(home, ".docker", "run", "docker.sock"); exists(own) {
			return "unix://" + own
		}
	}
	return systemHost
}
