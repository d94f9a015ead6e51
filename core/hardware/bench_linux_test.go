package hardware

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/disk"
	"github.com/shirou/gopsutil/v3/host"
	"github.com/shirou/gopsutil/v3/mem"
	"github.com/shirou/gopsutil/v3/net"
)

// desktop is this machine with the 30 sensors of a common desktop, as test machines have none.
func desktop(b *testing.B) (root string) {
	b.Helper()
	files := map[string]string{}
	for i, name := range []string{"nvme", "coretemp", "acpitz", "iwlwifi_1", "nct6798"} {
		monitor := fmt.Sprintf("sys/class/hwmon/hwmon%d", i)
		files[monitor+"/name"] = name + "\n"
		for j := range 6 {
			files[fmt.Sprintf("%s/temp%d_input", monitor, j)] = fmt.Sprintf("%d000\n", 40+j)
			files[fmt.Sprintf("%s/temp%d_label", monitor, j)] = fmt.Sprintf("Core %d\n", j)
		}
	}
	root = tree(b, files)
	for _, real := range []string{"proc", "sys/class/net"} {
		if err := os.Symlink("/"+real, filepath.Join(root, real)); err != nil {
			b.Fatal(err)
		}
	}
	return root
}

// BenchmarkSample gathers and encodes what a heartbeat tells.
func BenchmarkSample(b *testing.B) {
	m := NewMeter(Options{root: desktop(b)})
	system := openSystem(m.options)
	defer system.close()
	m.swap(system)
	b.ReportAllocs()
	for b.Loop() {
		m.forget()
		if _, err := json.Marshal(m.Sample()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGopsutilSame gathers the same values through gopsutil alone, to compare with.
func BenchmarkGopsutilSame(b *testing.B) {
	b.Setenv("HOST_SYS", filepath.Join(desktop(b), "sys"))
	b.ReportAllocs()
	for b.Loop() {
		load, err := cpu.Percent(0, false)
		if err != nil {
			b.Fatal(err)
		}
		memory, err := mem.VirtualMemory()
		if err != nil {
			b.Fatal(err)
		}
		usage, err := disk.Usage("/")
		if err != nil {
			b.Fatal(err)
		}
		traffic, err := net.IOCounters(true)
		if err != nil {
			b.Fatal(err)
		}
		temperatures, err := host.SensorsTemperatures()
		if err != nil || len(temperatures) != 30 {
			b.Fatalf("%d temperatures: %v", len(temperatures), err)
		}
		if _, err := json.Marshal([]any{load, memory.Used, usage.Used, traffic[0].BytesRecv, traffic[0].BytesSent, temperatures[0]}); err != nil {
			b.Fatal(err)
		}
	}
}
