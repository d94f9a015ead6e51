package hardware

import (
	"context"
	"strings"

	"github.com/shirou/gopsutil/v3/host"
)

// cpuTemperature needs a program built with cgo.
func cpuTemperature(ctx context.Context) *float64 {
	sensors, _ := host.SensorsTemperaturesWithContext(ctx) // partial results come with an error
	for _, s := range sensors {
		if strings.HasPrefix(s.SensorKey, "TC0") && s.Temperature > 0 {
			return new(s.Temperature)
		}
	}
	return nil
}

// isPhysical holds for en0, en1, …: Ethernet and Wi-Fi.
func isPhysical(name string) bool { return strings.HasPrefix(name, "en") }
