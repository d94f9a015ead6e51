package docker

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/distributedcompute/host-agent/core/rental"
)

// kernelCapabilities are the kernel's numbers of those that rentals may have.
var kernelCapabilities = map[string]uint{
	"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7,
	"NET_BIND_SERVICE": 10, "SYS_CHROOT": 18, "AUDIT_WRITE": 29, "SETFCAP": 31,
}

// namespaces are those that a container never shares with the agent or the host. Users are left out: most
// engines have one set of them.
var namespaces = []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"}

// kernelTraits checks what the kernel says of a container's first process: that it filters its system calls, that it
// can gain no rights, and that it shares no view of the system. A process number is a hint, as it may be of another
// machine or be someone else's by now: nothing is said of a process that is not in the container's control
// group, before and after the look, or that is dead.
func kernelTraits(pid int, containerID string, gpus []rental.GPU) error {
	if pid <= 1 {
		return nil
	}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	before, ours := lives(pid, containerID)
	if !ours {
		return nil
	}
	found, seen := look(dir, gpus)
	if !seen {
		return nil
	}
	if after, ours := lives(pid, containerID); !ours || after != before {
		return nil
	}
	return found
}

// lives looks at a process; ours is false unless it is there, no corpse, and of that container.
func lives(pid int, containerID string) (found process, ours bool) {
	found, there := processOf(pid)
	if !there {
		return process{}, false
	}
	groups, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	return found, err == nil && len(containerID) == 64 && bytes.Contains(groups, []byte(containerID))
}

// look returns what is wrong with a process; seen is false where that cannot be told.
func look(dir string, gpus []rental.GPU) (found error, seen bool) {
	raw, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return nil, false
	}
	if found := checkStatus(string(raw)); found != nil {
		return found, true
	}
	for _, kind := range namespaces {
		its, err := os.Readlink(filepath.Join(dir, "ns", kind))
		if err != nil {
			return nil, false // not root, or gone
		}
		for _, other := range []string{"self", "1"} {
			if theirs, err := os.Readlink(filepath.Join("/proc", other, "ns", kind)); err == nil && theirs == its {
				return deviationf("it shares the %s namespace of the host", kind), true
			}
		}
	}
	groups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
	if err != nil {
		return nil, false
	}
	if list, ok := deviceList(string(groups)); ok {
		return checkDevices(list, gpus), true
	}
	return nil, true
}

// checkStatus reads the "Name:\tvalue" lines of a process' status.
func checkStatus(status string) error {
	fields := make(map[string]string)
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	if fields["Seccomp"] != "2" {
		return deviationf("its system calls are not filtered: Seccomp %q", fields["Seccomp"])
	}
	if fields["NoNewPrivs"] != "1" {
		return deviationf("it can gain rights: NoNewPrivs %q", fields["NoNewPrivs"])
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		bits, err := strconv.ParseUint(fields[set], 16, 64)
		if err != nil || bits&^allowedBits() != 0 {
			return deviationf("it has capabilities beyond its own: %s %q", set, fields[set])
		}
	}
	return nil
}

// allowedBits is the mask of the capabilities that rentals may have.
func allowedBits() (mask uint64) {
	for _, name := range capabilities {
		mask |= 1 << kernelCapabilities[name]
	}
	return mask
}

// deviceList is what a control group of the first version lets its processes open. Later ones do it by a program that
// cannot be read.
func deviceList(groups string) (list string, ok bool) {
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 || fields[1] != "devices" {
			continue
		}
		raw, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/devices", filepath.Clean("/"+fields[2]), "devices.list"))
		return string(raw), err == nil
	}
	return "", false
}

// Numbers of devices, by the kernel's Documentation/admin-guide/devices.txt.
const (
	majorMemory, majorTTY   = 1, 5
	majorPTSFirst, majorPTS = 136, 143
	majorNVIDIA             = 195
	minorNVIDIALast         = 253 // what follows is for control
)

// checkDevices holds a list of lines such as "c 1:3 rwm" against what is harmless (null, zero, full, random, terminals of the
// container's own) and what was rented. Making a device without opening it ("m") is harmless: it is the opening that is
// refused. Numbers of other kinds of NVIDIA's and AMD's devices are given out as they come, so they pass where such
// a GPU was rented, and nowhere else.
func checkDevices(list string, gpus []rental.GPU) error {
	cards := 0
	for line := range strings.Lines(list) {
		var kind, access string
		var major, minor string
		if _, err := fmt.Sscanf(strings.ReplaceAll(strings.TrimSpace(line), ":", " "), "%s %s %s %s", &kind, &major, &minor, &access); err != nil {
			return deviationf("its devices cannot be read: %.80q", line)
		}
		switch number, err := strconv.Atoi(major); {
		case access == "m":
		case kind != "c" || err != nil:
			return &deviation{text: fmt.Sprintf("it may open devices %.80q", line), devices: true}
		case number == majorMemory && harmlessMemory[minor], number == majorTTY && harmlessTTY[minor],
			number >= majorPTSFirst && number <= majorPTS, number == majorTUN && minor == "200":
		case len(gpus) == 0 || minor == "*":
			return &deviation{text: fmt.Sprintf("it may open devices %.80q", line), devices: true}
		case number == majorNVIDIA:
			if card, err := strconv.Atoi(minor); err == nil && card <= minorNVIDIALast {
				cards++
			}
		}
	}
	if cards > len(gpus) {
		return &deviation{text: fmt.Sprintf("it may open %d GPUs of %d", cards, len(gpus)), devices: true}
	}
	return nil
}

// majorTUN is of network tunnels, which older runtimes let containers open; without rights on the network it is of no use.
const majorTUN = 10

var (
	harmlessMemory = map[string]bool{"3": true, "5": true, "7": true, "8": true, "9": true}
	harmlessTTY    = map[string]bool{"0": true, "1": true, "2": true}
)
