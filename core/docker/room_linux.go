package docker

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// spaceOf is how much there is of the disk with a directory.
func spaceOf(dir string) (space, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return space{}, fmt.Errorf("looking at the engine's disk: %w", err)
	}
	return space{free: int64(fs.Bavail) * fs.Bsize, total: int64(fs.Blocks) * fs.Bsize}, nil
}
