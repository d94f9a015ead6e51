package docker

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// processOf looks at a process. One that has ended and waits to be collected is none.
func processOf(pid int) (process, bool) {
	if pid <= 0 {
		return process{}, false
	}
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return process{}, false
	}
	// The name, in parentheses, may hold anything; the state is the first field after it, the start the 20th.
	fields := strings.Fields(string(raw)[strings.LastIndexByte(string(raw), ')')+1:])
	if len(fields) < 20 || strings.ContainsAny(fields[0], "ZXx") {
		return process{}, false
	}
	started, err := strconv.ParseUint(fields[19], 10, 64)
	return process{pid: pid, started: started}, err == nil
}

// bootTime is when this machine was started.
func bootTime() (time.Time, bool) {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return time.Time{}, false
	}
	return time.Now().Add(-time.Duration(since.Nano())), true
}
