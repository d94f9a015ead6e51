package docker

const (
	howToInstall = "Install Docker Desktop: https://docs.docker.com/desktop/"
	howToStart   = "Start Docker Desktop."
	howToPermit  = "Add this user to the group docker-users, then log out and in again."
)

// defaultHost is the pipe of Docker Desktop.
func defaultHost() string { return "npipe:////./pipe/docker_engine" }
