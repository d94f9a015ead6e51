package hardware

import (
	"path/filepath"
	"strconv"
	"strings"
)

// RunsIn says whether a process of this machine is one of the container with this id. It is known only of a
// process that lives, whose control group this system shows: a number that is free again, or whose process
// waits to be reaped, says nothing of anybody.
func RunsIn(o Options, pid int, container string) (yes, known bool) {
	o = o.withDefaults()
	directory := filepath.Join(o.root, "proc", strconv.Itoa(pid))
	if len(container) < 12 || !alive(directory) { // a shorter text might be part of any path
		return false, false
	}
	groups := line(directory, "cgroup")
	return strings.Contains(groups, container), groups != "" && alive(directory)
}

// Alive reports whether a process is there and has not ended; where the system does not tell, it is.
func Alive(o Options, pid int) bool {
	o = o.withDefaults()
	return alive(filepath.Join(o.root, "proc", strconv.Itoa(pid)))
}

// alive reads the state, which follows the program's name in parentheses; that may hold any character.
func alive(directory string) bool {
	stat := line(directory, "stat")
	after := stat[strings.LastIndexByte(stat, ')')+1:]
	state := strings.TrimSpace(after)
	return state != "" && state[0] != 'Z' && state[0] != 'X'
}

// BootID is another one after each start of the system; "" where that is not known.
func BootID(o Options) string {
	return line(o.withDefaults().root, "proc/sys/kernel/random/boot_id")
}
