package engine

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupVariable hands the name of the cgroup down into the isolated copy of a program: the one outside
// removes it when everything inside is gone.
const cgroupVariable = "DISTRIBUTEDCOMPUTE_SANDBOX_CGROUP"

// cgroupRoot is where the kernel's control groups are mounted, one tree per controller or a single one.
const cgroupRoot = "/sys/fs/cgroup"

// cgroupParent is the cgroup that containers of a process' engine are put under.
func cgroupParent(pid int) string { return fmt.Sprintf("/dc-sandbox-%d", pid) }

// removeCgroups removes the emptied groups of that name from every tree.
func removeCgroups(name string) error {
	tops := []string{filepath.Join(cgroupRoot, name)}
	trees, err := filepath.Glob(filepath.Join(cgroupRoot, "*", name))
	if err != nil {
		return err
	}
	var failures []error
	for _, top := range append(tops, trees...) {
		failures = append(failures, removeCgroup(top))
	}
	return errors.Join(failures...)
}

func removeCgroup(top string) error {
	var groups []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case entry.IsDir():
			groups = append(groups, path)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing control groups: %w", err)
	}
	slices.Reverse(groups) // the innermost first
	for _, group := range groups {
		if err := removeGroup(group); err != nil {
			return fmt.Errorf("removing control group: %w", err)
		}
	}
	return nil
}

// removeGroup gives the kernel a moment: a group is busy until its last process has been collected.
func removeGroup(group string) error {
	var err error
	for range 50 {
		if err = os.Remove(group); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// killEngineParts ends what dockerd left behind: its containerd and the shims of containers carry its directory in
// their command lines.
func killEngineParts(dir string) error {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("listing processes: %w", err)
	}
	for _, process := range processes {
		pid, err := strconv.Atoi(process.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if !isEnginePart(process.Name(), dir) {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("ending process %d: %w", pid, err)
		}
	}
	return nil
}

// isEnginePart reports whether a process is a program of Docker's that works in dir.
func isEnginePart(pid, dir string) bool {
	program, err := os.Readlink(filepath.Join("/proc", pid, "exe"))
	if err != nil {
		return false // gone, or the kernel's
	}
	name := filepath.Base(program)
	if !strings.HasPrefix(name, "containerd") && !strings.HasPrefix(name, "docker") {
		return false
	}
	line, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
	return err == nil && bytes.Contains(line, []byte(dir+"/"))
}

// unmountBelow takes down every mount in dir, the innermost first.
func unmountBelow(dir string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("listing mounts: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	slices.SortFunc(points, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, point := range points {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmounting %s: %w", point, err)
		}
	}
	return nil
}
