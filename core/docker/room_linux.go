package docker

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// roomOf is how much is free, and how much there is, of the disk with a directory.
func roomOf(dir string) (free, total int64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, 0, fmt.Errorf("looking at the engine's disk: %w", err)
	}
	return int64(fs.Bavail) * fs.Bsize, int64(fs.Blocks) * fs.Bsize, nil
}
