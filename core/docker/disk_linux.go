package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	countNice = 10    // renters' files are counted behind everything else that wants to run
	atOnce    = 256   // names that are read together
	blockSize = 512   // of st_blocks
	mostOpen  = 65536 // descriptors of a rental that are looked at
)

// logsOf is the directory that has a container's logs.
func logsOf(dataRoot, containerID string) string {
	return filepath.Join(dataRoot, "containers", containerID)
}

// countDirs counts what is in directories, up to somewhat more than most files. The renter shapes these trees while
// they are walked: no link is followed and no other file system entered, each step goes by the descriptor of the
// directory before it.
func countDirs(ctx context.Context, most int64, dirs ...string) (sum usage, err error) {
	var counting sync.WaitGroup
	counting.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine, and its niceness with it
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, countNice)
		c := counter{ctx: ctx, most: most, linked: map[[2]uint64]bool{}}
		for _, dir := range dirs {
			if err = c.tree(dir); err != nil {
				return
			}
		}
		sum = c.sum
	})
	counting.Wait()
	return sum, err
}

// counter walks trees.
type counter struct {
	ctx    context.Context
	most   int64
	device uint64
	linked map[[2]uint64]bool // files with several names that have been counted
	sum    usage
}

const openDirectory = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NOATIME

func (c *counter) tree(dir string) error {
	if dir == "" {
		return errors.New("the directory is not known")
	}
	fd, err := unix.Open(dir, openDirectory, 0)
	if err != nil {
		return fmt.Errorf("opening what a rental has written: %w", err)
	}
	var top unix.Stat_t
	if err := unix.Fstat(fd, &top); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("looking at what a rental has written: %w", err)
	}
	c.device = top.Dev
	return c.directory(fd, 1)
}

// directory counts what is in a directory, whose descriptor it closes.
func (c *counter) directory(fd, depth int) error {
	dir := os.NewFile(uintptr(fd), "")
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(atOnce)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a directory of a rental: %w", err)
		}
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		for _, name := range names {
			if err := c.entry(fd, name, depth); err != nil {
				return err
			}
			if c.sum.files > c.most {
				return nil
			}
		}
	}
}

func (c *counter) entry(parent int, name string, depth int) error {
	var stat unix.Stat_t
	if err := unix.Fstatat(parent, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil // removed since
		}
		return fmt.Errorf("looking at a file of a rental: %w", err)
	}
	if stat.Dev != c.device {
		return nil
	}
	isDirectory := stat.Mode&unix.S_IFMT == unix.S_IFDIR
	if stat.Nlink > 1 && !isDirectory {
		file := [2]uint64{stat.Dev, stat.Ino}
		if c.linked[file] {
			return nil
		}
		c.linked[file] = true
	}
	c.sum.files++
	c.sum.bytes += stat.Blocks * blockSize
	if !isDirectory {
		return nil
	}
	if depth >= deepest {
		c.sum.tooDeep = true
		return nil
	}
	fd, err := unix.Openat(parent, name, openDirectory, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP): // it is another thing now
		return nil
	case err != nil:
		return fmt.Errorf("opening a directory of a rental: %w", err)
	}
	if err := unix.Fstat(fd, &stat); err != nil || stat.Dev != c.device {
		_ = unix.Close(fd)
		return nil
	}
	return c.directory(fd, depth+1)
}

// openDeleted counts, for each of the containers, files that have been removed and are still open: they are in no
// directory and take space all the same. Where this program may not look there are none.
func openDeleted(containers []string) map[string]usage {
	found := make(map[string]usage)
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return found
	}
	seen := make(map[[2]uint64]bool)
	looked := make(map[string]int)
	for _, process := range processes {
		if _, err := strconv.Atoi(process.Name()); err != nil {
			continue
		}
		dir := filepath.Join("/proc", process.Name())
		groups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil {
			continue // gone
		}
		for _, id := range containers {
			if strings.Contains(string(groups), id) && looked[id] < mostOpen {
				more, n := openDeletedOf(filepath.Join(dir, "fd"), seen, mostOpen-looked[id])
				found[id] = found[id].plus(more)
				looked[id] += n
			}
		}
	}
	return found
}

// openDeletedOf counts those of one process, of at most so many descriptors.
func openDeletedOf(dir string, seen map[[2]uint64]bool, most int) (sum usage, looked int) {
	fds, err := os.Open(dir)
	if err != nil {
		return usage{}, 0
	}
	defer fds.Close()
	names, err := fds.Readdirnames(most)
	if err != nil {
		return usage{}, 0
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if target, err := os.Readlink(path); err != nil || !strings.HasSuffix(target, " (deleted)") {
			continue
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(path, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.HUGETLBFS_MAGIC {
			continue // shared memory, which is part of the rental's memory
		}
		var stat unix.Stat_t
		if err := unix.Stat(path, &stat); err != nil || stat.Nlink > 0 || seen[[2]uint64{stat.Dev, stat.Ino}] {
			continue
		}
		seen[[2]uint64{stat.Dev, stat.Ino}] = true
		sum.files++
		sum.bytes += stat.Blocks * blockSize
	}
	return sum, len(names)
}
