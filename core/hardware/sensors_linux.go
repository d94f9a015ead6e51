package hardware

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// cpuSensors finds the files that hold the processors' temperatures in thousandths of a degree: one
// a package from the hardware monitors, else the processor's thermal zones. The mainboard's sensors
// do not count: on many machines they show the same number for ever.
func cpuSensors(root string) []string {
	var found []string
	hwmon := filepath.Join(root, "sys/class/hwmon")
	for _, name := range names(hwmon) {
		switch line(hwmon, name, "name") {
		case "coretemp", "k10temp", "zenpower", "cpu_thermal":
			if input := packageInput(filepath.Join(hwmon, name)); input != "" {
				found = append(found, input)
			}
		}
	}
	if found != nil {
		return found
	}
	thermal := filepath.Join(root, "sys/class/thermal")
	for _, name := range names(thermal) {
		kind := line(thermal, name, "type")
		if kind == "x86_pkg_temp" || strings.HasPrefix(kind, "cpu") || strings.HasPrefix(kind, "soc") {
			found = append(found, filepath.Join(thermal, name, "temp"))
		}
	}
	return found
}

// packageInput picks the input of a monitor that stands for the whole processor: the die's, the
// package's, the control value (which some processors shift), else the first there is.
func packageInput(monitor string) string {
	inputs, _ := filepath.Glob(filepath.Join(monitor, "temp*_input"))
	if len(inputs) == 0 {
		return ""
	}
	slices.Sort(inputs)
	for _, label := range []string{"Tdie", "Package id", "Tctl"} {
		for _, input := range inputs {
			if strings.HasPrefix(line(strings.TrimSuffix(input, "_input")+"_label"), label) {
				return input
			}
		}
	}
	return inputs[0]
}

func names(directory string) []string {
	entries, _ := os.ReadDir(directory)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}
