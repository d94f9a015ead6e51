package hardware

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/shirou/gopsutil/v3/disk"
	"github.com/shirou/gopsutil/v3/mem"
	"github.com/shirou/gopsutil/v3/net"
)

// tree lays out files, by their path and content, as a root for Options.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestCPUTemperature(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		want  *float64
	}{
		{"none", nil, nil},
		{"Intel: the package, not a core", map[string]string{
			"sys/class/hwmon/hwmon0/name":        "nvme\n",
			"sys/class/hwmon/hwmon0/temp1_input": "80000\n",
			"sys/class/hwmon/hwmon3/name":        "coretemp\n",
			"sys/class/hwmon/hwmon3/temp1_input": "54000\n",
			"sys/class/hwmon/hwmon3/temp1_label": "Package id 0\n",
			"sys/class/hwmon/hwmon3/temp2_input": "61000\n",
			"sys/class/hwmon/hwmon3/temp2_label": "Core 0\n",
		}, new(54.0)},
		{"two sockets: the hotter", map[string]string{
			"sys/class/hwmon/hwmon0/name":        "coretemp\n",
			"sys/class/hwmon/hwmon0/temp1_input": "54000\n",
			"sys/class/hwmon/hwmon1/name":        "coretemp\n",
			"sys/class/hwmon/hwmon1/temp1_input": "67500\n",
		}, new(67.5)},
		{"AMD: the die, not the shifted control value", map[string]string{
			"sys/class/hwmon/hwmon0/name":        "k10temp\n",
			"sys/class/hwmon/hwmon0/temp1_input": "81250\n",
			"sys/class/hwmon/hwmon0/temp1_label": "Tctl\n",
			"sys/class/hwmon/hwmon0/temp2_input": "54250\n",
			"sys/class/hwmon/hwmon0/temp2_label": "Tdie\n",
		}, new(54.25)},
		{"a thermal zone for want of a monitor, but not the mainboard's", map[string]string{
			"sys/class/thermal/thermal_zone0/type": "acpitz\n",
			"sys/class/thermal/thermal_zone0/temp": "90000\n",
			"sys/class/thermal/thermal_zone1/type": "x86_pkg_temp\n",
			"sys/class/thermal/thermal_zone1/temp": "48000\n",
		}, new(48.0)},
		{"a sensor that cannot be read", map[string]string{
			"sys/class/hwmon/hwmon0/name":        "k10temp\n",
			"sys/class/hwmon/hwmon0/temp1_input": "",
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := openSystem(Options{root: tree(t, test.files)})
			defer s.close()
			if diff := cmp.Diff(test.want, s.temperature()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCPULoad(t *testing.T) {
	const idle = "cpu  1000 0 1000 8000 1000 0 0 0 500 0\ncpu0 500 0 500 4000 500 0 0 0 0 0\ncpu1 500 0 500 4000 500 0 0 0 0 0\nintr 1\n"
	root := tree(t, map[string]string{"proc/stat": idle})
	s := openSystem(Options{root: root})
	defer s.close()
	for _, step := range []struct {
		name, stat string
		want       *float64
	}{
		{"nothing has passed", idle, nil},
		{"75 of 100 ticks, guests not counted twice", "cpu  1050 10 1010 8020 1005 2 2 1 550 0\ncpu0 1\ncpu1 1\n", new(75.0)},
		{"too short to tell: as before", "cpu  1060 10 1010 8020 1005 2 2 1 550 0\ncpu0 1\ncpu1 1\n", new(75.0)},
		{"all waits for disks", "cpu  1050 10 1010 8020 1105 2 2 1 550 0\ncpu0 1\ncpu1 1\n", new(0.0)},
		{"a processor was taken out", "cpu  550 10 510 4020 505 2 2 1 550 0\ncpu0 1\n", nil},
		{"and it goes on", "cpu  560 10 510 4020 505 2 2 1 550 0\ncpu0 1\n", new(100.0)},
		{"nothing to read", "", nil},
	} {
		if err := os.WriteFile(filepath.Join(root, "proc/stat"), []byte(step.stat), 0o600); err != nil {
			t.Fatal(err)
		}
		s.readLoad()
		if diff := cmp.Diff(step.want, s.load); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
}

func TestTraffic(t *testing.T) {
	const heading = "Inter-|   Receive  |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n"
	const virtual = "    lo: 1000 1 0 0 0 0 0 0 1000 1 0 0 0 0 0 0\nvethab:  500 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0\n"
	const real = "  eth0: 70 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n wlan0:5 1 0 0 0 0 0 0 18446744073709 1 0 0 0 0 0 0\n"
	for _, test := range []struct {
		name, netdev string
		rx, tx       *uint64
	}{
		{"real interfaces only", heading + virtual + real, new(uint64(75)), new(uint64(18446744073716))},
		{"none is real", heading + virtual, nil, nil},
		{"more interfaces than a page holds", heading + strings.Repeat(virtual, 200) + real, new(uint64(75)), new(uint64(18446744073716))},
		{"no such file", "", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := openSystem(Options{root: tree(t, map[string]string{
				"proc/net/dev":                    test.netdev,
				"sys/class/net/eth0/device/class": "", "sys/class/net/wlan0/device/class": "",
				"sys/class/net/lo/mtu": "", "sys/class/net/vethab/mtu": "",
			})})
			defer s.close()
			rx, tx := s.traffic()
			if diff := cmp.Diff([]*uint64{test.rx, test.tx}, []*uint64{rx, tx}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRAMUsage(t *testing.T) {
	s := openSystem(Options{root: tree(t, map[string]string{
		"proc/meminfo": "MemTotal:       16384000 kB\nMemFree:          100000 kB\nMemAvailable:   12288000 kB\n",
	})})
	defer s.close()
	if diff := cmp.Diff(new(int64(4000)), s.ramUsage()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNVIDIAOnBus(t *testing.T) {
	for _, test := range []struct {
		name, vendor, class string
		want                string
	}{
		{"a graphics card", "0x10de\n", "0x030000\n", "nvml_missing"},
		{"a compute card", "0x10de\n", "0x030200\n", "nvml_missing"},
		{"only a card's sound", "0x10de\n", "0x040300\n", "no_gpu"},
		{"another maker's", "0x1002\n", "0x030000\n", "no_gpu"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := tree(t, map[string]string{
				"sys/bus/pci/devices/0000:01:00.0/vendor": test.vendor, "sys/bus/pci/devices/0000:01:00.0/class": test.class,
			})
			if got := gapOf(nvmlLibraryNotFound, Options{root: root}); got.Code != test.want || got.Fix == "" {
				t.Errorf("gap %+v, want %s with a fix", got, test.want)
			}
		})
	}
}

func TestOSVersion(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		want  *string
	}{
		{"quoted", map[string]string{"etc/os-release": "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"}, new("Debian GNU/Linux 12 (bookworm)")},
		{"bare, in the other place", map[string]string{"usr/lib/os-release": "PRETTY_NAME=Alpine\n"}, new("Alpine")},
		{"single quotes", map[string]string{"etc/os-release": "PRETTY_NAME='Void Linux'\n"}, new("Void Linux")},
		{"none", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, osVersion(t.Context(), Options{root: tree(t, test.files)})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The own readers and gopsutil must agree on what both can tell.
func TestReaderAgreesWithGopsutil(t *testing.T) {
	s := openSystem(Options{root: "/"})
	defer s.close()
	before := received(t, s)
	var sample Sample
	s.read("/", &sample)
	after := received(t, s)

	memory, err := mem.VirtualMemory()
	if err != nil {
		t.Fatal(err)
	}
	used, tolerance := float64(memory.Total-memory.Available)/mib, 0.05*float64(memory.Total)/mib
	if got := sample.RAMUsageMB; got == nil || math.Abs(float64(*got)-used) > tolerance {
		t.Errorf("memory used: %s, gopsutil says %.0f", cmp.Diff(nil, got), used)
	}
	usage, err := disk.Usage("/")
	if err != nil {
		t.Fatal(err)
	}
	if got := sample.DiskUsageGB; got == nil || math.Abs(float64(*got)-float64(usage.Used/gib)) > 1 {
		t.Errorf("disk used: %s, gopsutil says %d", cmp.Diff(nil, got), usage.Used/gib)
	}
	if got := sample.NetRxBytes; got == nil && after > 0 || got != nil && (*got < before || *got > after) {
		t.Errorf("bytes received: %s, gopsutil says %d to %d", cmp.Diff(nil, got), before, after)
	}
}

// received is gopsutil's sum over the interfaces s takes for real.
func received(t *testing.T, s *systemReader) (bytes uint64) {
	t.Helper()
	counters, err := net.IOCounters(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counters {
		if s.isPhysical([]byte(c.Name)) {
			bytes += c.BytesRecv
		}
	}
	return bytes
}

func TestSystemReaderCloses(t *testing.T) {
	before := openFiles(t)
	for range 10 {
		s := openSystem(Options{root: "/"})
		s.read("/", &Sample{})
		s.close()
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files open after, %d before", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
