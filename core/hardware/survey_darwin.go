package hardware

import (
	"context"

	"github.com/shirou/gopsutil/v3/host"
	"golang.org/x/sys/unix"
)

func systemDrive() string { return "/" }

func osVersion(ctx context.Context, _ Options) *string {
	_, _, version, err := host.PlatformInformationWithContext(ctx)
	if err != nil || version == "" {
		return nil
	}
	return new("macOS " + version)
}

func virtualized(context.Context, Options) *bool {
	present, err := unix.SysctlUint32("kern.hv_vmm_present")
	if err != nil {
		return nil
	}
	return new(present != 0)
}

func hasCPUSensor(ctx context.Context, _ Options) bool { return cpuTemperature(ctx) != nil }

// nvidiaOnBus is no question on macOS, which has no driver for such cards.
func nvidiaOnBus(Options) bool { return false }
