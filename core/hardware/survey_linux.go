package hardware

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/host"
)

func systemDrive() string { return "/" }

// osVersion reads os-release itself: gopsutil's way may start lsb_release.
func osVersion(_ context.Context, o Options) *string {
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		file, err := os.Open(filepath.Join(o.root, name))
		if err != nil {
			continue
		}
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if value, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
				if text, err := strconv.Unquote(value); err == nil {
					value = text
				}
				return known(strings.Trim(value, "'"))
			}
		}
	}
	return nil
}

// virtualized trusts the processor's own flag first; processors without flags leave other traces.
func virtualized(ctx context.Context, _ Options) *bool {
	if infos, err := cpu.InfoWithContext(ctx); err == nil && len(infos) > 0 && slices.Contains(infos[0].Flags, "hypervisor") {
		return new(true)
	}
	_, role, err := host.VirtualizationWithContext(ctx)
	if err != nil {
		return nil
	}
	return new(role == "guest")
}

func hasCPUSensor(_ context.Context, o Options) bool { return len(cpuSensors(o.root)) > 0 }

// nvidiaOnBus reports whether an NVIDIA display controller is plugged in, driver or not.
func nvidiaOnBus(o Options) bool { return nvidiaCardsOnBus(o) > 0 }

func isNVIDIA(device string) bool {
	return line(device, "vendor") == "0x10de" && strings.HasPrefix(line(device, "class"), "0x03")
}

// line is the one line of a kernel file, "" if there is none.
func line(path ...string) string {
	content, _ := os.ReadFile(filepath.Join(path...))
	return strings.TrimSpace(string(content))
}
