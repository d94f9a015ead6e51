package main

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// limits are what the container's control groups allow; 0 is no limit.
type limits struct {
	version int // of the control groups, 1 or 2; 0: none found
	cpus    float64
	memory  int64 // bytes
	pids    int64
}

const cgroupRoot = "/sys/fs/cgroup"

func readLimits() limits {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		quota, period, _ := strings.Cut(read("cpu.max"), " ")
		return limits{version: 2, cpus: ratio(quota, period), memory: number(read("memory.max")), pids: number(read("pids.max"))}
	}
	if _, err := os.Stat(filepath.Join(cgroupRoot, "memory")); err == nil {
		return limits{
			version: 1,
			cpus:    ratio(read("cpu/cpu.cfs_quota_us"), read("cpu/cpu.cfs_period_us")),
			memory:  number(read("memory/memory.limit_in_bytes")),
			pids:    number(read("pids/pids.max")),
		}
	}
	return limits{}
}

func read(name string) string {
	content, _ := os.ReadFile(filepath.Join(cgroupRoot, name))
	return strings.TrimSpace(string(content))
}

// number reads a limit: "max", a negative number and version 1's page-rounded maximum are none.
func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/2 {
		return 0
	}
	return n
}

func ratio(quota, period string) float64 {
	q, p := number(quota), number(period)
	if q == 0 || p == 0 {
		return 0
	}
	return float64(q) / float64(p)
}
