package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/sandbox/workload/report"
)

// look finds out what the renter got.
func look(ctx context.Context) report.Rental {
	hostname, _ := os.Hostname()
	status := processStatus()
	limits := readLimits()
	return report.Rental{
		Hostname:      hostname,
		UID:           os.Getuid(),
		Arguments:     os.Args[1:],
		GPUsVisible:   os.Getenv("NVIDIA_VISIBLE_DEVICES"),
		GPUs:          gpus(ctx),
		CPUs:          limits.cpus,
		MemoryBytes:   limits.memory,
		PidsLimit:     limits.pids,
		ShmBytes:      sizeOf("/dev/shm"),
		DiskBytes:     sizeOf("/"),
		Capabilities:  capabilities(status["CapEff"]),
		NoNewPrivs:    status["NoNewPrivs"] == "1",
		Seccomp:       status["Seccomp"],
		Environment:   environmentNames(),
		CgroupVersion: limits.version,
	}
}

func environmentNames() []string {
	names := []string{}
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// gpus asks nvidia-smi, which the NVIDIA toolkit puts into containers that have a GPU.
func gpus(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nvidia-smi", "-L").Output()
	out = bytes.TrimSpace(out)
	if err != nil || len(out) == 0 {
		return []string{}
	}
	return strings.Split(string(out), "\n")
}

// processStatus reads the "Name:\tvalue" lines of /proc/self/status.
func processStatus() map[string]string {
	content, _ := os.ReadFile("/proc/self/status")
	fields := map[string]string{}
	for line := range strings.Lines(string(content)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}

// capabilityNames are the kernel's, by bit.
var capabilityNames = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
	LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
	SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
	AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON
	BPF CHECKPOINT_RESTORE`)

// capabilities names the bits of a mask in hexadecimal.
func capabilities(mask string) []string {
	names := []string{}
	bits, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		return names
	}
	for bit := range 64 {
		switch {
		case bits&(1<<bit) == 0:
		case bit < len(capabilityNames):
			names = append(names, capabilityNames[bit])
		default:
			names = append(names, fmt.Sprintf("CAP_%d", bit))
		}
	}
	return names
}
