package hardware

import (
	"context"
	"strings"
)

// cpuTemperature is not to be had without administrator's rights and a query of some 100 ms.
func cpuTemperature(context.Context) *float64 { return nil }

// isPhysical leaves out loopback and the switches of virtual machines.
func isPhysical(name string) bool {
	return !strings.HasPrefix(name, "Loopback") && !strings.HasPrefix(name, "vEthernet")
}
