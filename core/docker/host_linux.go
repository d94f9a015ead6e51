package docker

import (
	"os"
	"path/filepath"
)

const (
	howToInstall = "Install Docker Engine: https://docs.docker.com/engine/install/"
	howToStart   = "Start it with: sudo systemctl enable --now docker"
	howToPermit  = "Add yourself to the docker group (sudo usermod -aG docker $USER), then log out and in again."
)

// defaultHost is the system's engine or, where there is none, the user's own rootless one.
func defaultHost() string {
	if exists(socketPath(systemHost)) {
		return systemHost
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		if rootless := filepath.Join(dir, "docker.sock"); exists(rootless) {
			return "unix://" + rootless
		}
	}
	return systemHost
}
