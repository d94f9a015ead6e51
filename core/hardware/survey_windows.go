package hardware

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strings"

	"github.com/shirou/gopsutil/v3/host"
	"golang.org/x/sys/windows/registry"
)

func systemDrive() string { return cmp.Or(os.Getenv("SystemDrive"), "C:") + `\` }

func osVersion(ctx context.Context, _ Options) *string {
	platform, _, version, err := host.PlatformInformationWithContext(ctx)
	if err != nil {
		return nil
	}
	return known(strings.TrimSpace(platform + " " + version))
}

// virtualized asks the firmware who made the machine.
func virtualized(context.Context, Options) *bool {
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, `HARDWARE\DESCRIPTION\System\BIOS`, registry.QUERY_VALUE)
	if err != nil {
		return nil
	}
	defer key.Close()
	maker, _, _ := key.GetStringValue("SystemManufacturer")
	product, _, err := key.GetStringValue("SystemProductName")
	if err != nil {
		return nil
	}
	machine := strings.ToLower(maker + " " + product)
	return new(slices.ContainsFunc([]string{"virtual machine", "vmware", "virtualbox", "kvm", "qemu", "xen"},
		func(word string) bool { return strings.Contains(machine, word) }))
}

// hasCPUSensor is no: Windows shows temperatures to administrators only, and slowly.
func hasCPUSensor(context.Context, Options) bool { return false }

// nvidiaOnBus is not asked on Windows: there, a card without a driver reads as no card.
func nvidiaOnBus(Options) bool { return false }
