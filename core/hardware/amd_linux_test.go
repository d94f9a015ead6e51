package hardware

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// radeon is what Linux shows of two cards and a processor's own graphics. It is made up after the kernel's
// documentation: there is no such card in the machines that run these tests.
func radeon(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	card := func(render, bus string, node string, files map[string]string) {
		t.Helper()
		device := filepath.Join("sys/devices/pci", bus)
		write(device+"/vendor", "0x1002")
		for name, content := range files {
			write(device+"/"+name, content)
		}
		if err := os.MkdirAll(filepath.Join(root, "sys/class/drm", render), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(root, device), filepath.Join(root, "sys/class/drm", render, "device")); err != nil {
			t.Fatal(err)
		}
		nodes := "sys/class/kfd/kfd/topology/nodes/" + node
		write(nodes+"/properties", "cpu_cores_count 0\nsimd_count 192\ndrm_render_minor "+render[len("renderD"):])
		write(nodes+"/gpu_id", "4"+node)
	}
	card("renderD129", "0000:0a:00.0", "2", map[string]string{
		"device": "0x744c", "revision": "0xc8", "unique_id": "0123456789abcdef",
		"mem_info_vram_total": "25753026560", "mem_info_vram_used": "1073741824", "gpu_busy_percent": "42",
		"max_link_speed": "16.0 GT/s PCIe", "max_link_width": "16",
		"hwmon/hwmon3/power1_cap": "339000000", "hwmon/hwmon3/power1_average": "120500000",
		"hwmon/hwmon3/temp1_input": "51000", "hwmon/hwmon3/fan1_input": "900", "hwmon/hwmon3/fan1_max": "3000",
	})
	card("renderD128", "0000:03:00.0", "1", map[string]string{
		"device": "0x73df", "revision": "0xc1", "product_name": "AMD Radeon PRO W6800",
		"mem_info_vram_total": "34342961152", "mem_info_vram_used": "16777216", "gpu_busy_percent": "0",
	})
	card("renderD130", "0000:0c:00.0", "3", map[string]string{"device": "0x164e", "mem_info_vram_total": "536870912"})
	write("sys/class/kfd/kfd/topology/nodes/0/properties", "cpu_cores_count 16\ndrm_render_minor 0")
	write("usr/share/libdrm/amdgpu.ids", "# List of AMDGPU IDs\n1.0.0\n744C,\tC8,\tAMD Radeon RX 7900 XTX\n744C,\tCC,\tAMD Radeon RX 7900 XT")
	write("sys/class/kfd/kfd/proc/4711/vram_42", "268435456")
	write("sys/class/kfd/kfd/proc/4711/vram_41", "0")
	write("sys/class/kfd/kfd/proc/4712/vram_42", "0")
	return root
}

func TestSurveyAMD(t *testing.T) {
	root := radeon(t)
	o := Options{root: root, NVMLPath: "/nonexistent"}
	got := Take(t.Context(), o)
	want := []GPU{
		{
			Index: 0, UUID: "PCI-0000:03:00.0", Vendor: "amd", Model: "AMD Radeon PRO W6800", Render: "renderD128",
			VRAMTotalMB: new(int64(32752)), VRAMAvailableMB: new(int64(32736)), PCIBusID: new("0000:03:00.0"),
		},
		{
			Index: 1, UUID: "GPU-0123456789abcdef", Vendor: "amd", Model: "AMD Radeon RX 7900 XTX", Render: "renderD129",
			VRAMTotalMB: new(int64(24560)), VRAMAvailableMB: new(int64(23536)), PCIBusID: new("0000:0a:00.0"),
			PowerLimitW: new(339.0), PCIeGeneration: new(4), PCIeWidth: new(16),
		},
	}
	if diff := cmp.Diff(want, got.GPUs); diff != "" {
		t.Errorf("GPUs (-want +got):\n%s", diff)
	}
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter(o)
		start(t, m)
		m.Use(got)
		sample := m.Sample()
		for name, diff := range map[string]string{
			"temperature": cmp.Diff([]*float64{nil, new(51.0)}, sample.GPUTempC),
			"load":        cmp.Diff([]*float64{new(0.0), new(42.0)}, sample.GPUUtilization),
			"memory":      cmp.Diff([]*int64{new(int64(16)), new(int64(1024))}, sample.GPUMemoryUsedMB),
			"power":       cmp.Diff([]*float64{nil, new(120.5)}, sample.GPUPowerW),
			"fan":         cmp.Diff([]*float64{nil, new(30.0)}, sample.GPUFanPercent),
		} {
			if diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	})
}

// NVIDIA's cards keep the first numbers also while their driver does not answer.
func TestAMDBesideNVIDIA(t *testing.T) {
	root := radeon(t)
	for _, file := range []struct{ name, content string }{{"vendor", "0x10de"}, {"class", "0x030000"}} {
		path := filepath.Join(root, "sys/bus/pci/devices/0000:01:00.0", file.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(file.content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var indices []int
	for _, gpu := range Take(t.Context(), Options{root: root, NVMLPath: "/nonexistent"}).GPUs {
		indices = append(indices, gpu.Index)
	}
	if !slices.Equal(indices, []int{1, 2}) {
		t.Errorf("numbers %v, want 1 and 2: 0 is NVIDIA's", indices)
	}
}

func TestInspectAMD(t *testing.T) {
	root := radeon(t)
	o := Options{root: root, NVMLPath: "/nonexistent"}
	card := GPU{UUID: "GPU-0123456789abcdef", Render: "renderD129"}
	gone := GPU{UUID: "GPU-fedcba9876543210", Render: "renderD131"}
	renamed := GPU{UUID: "GPU-0123456789abcdef", Render: "renderD128"}
	got, err := Inspect(t.Context(), o, []GPU{card, gone, renamed})
	if err != nil {
		t.Fatal(err)
	}
	want := []GPUState{
		{
			UUID: card.UUID, MemoryUsed: new(int64(1 << 30)), Memory: new(int64(25753026560)), Settings: Settings{PowerLimit: new(uint32(339_000))},
			Compute: []Process{{PID: 4711, Memory: new(int64(256 << 20))}},
		},
		{UUID: gone.UUID, Lost: true},
		{UUID: renamed.UUID, Lost: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	tenants, err := Tenants(t.Context(), o, []GPU{card})
	wantTenants := []Tenancy{{UUID: "PCI-0000:03:00.0", Compute: []Process{}}, {UUID: card.UUID, Compute: []Process{{PID: 4711, Memory: new(int64(256 << 20))}}}}
	if diff := cmp.Diff(wantTenants, tenants); diff != "" || err != nil {
		t.Errorf("tenants, error %v (-want +got):\n%s", err, diff)
	}
	if err := Restore(t.Context(), o, card, Settings{PowerLimit: new(uint32(300_000))}); err != nil {
		t.Fatal(err)
	}
	if text := line(root, "sys/devices/pci/0000:0a:00.0/hwmon/hwmon3/power1_cap"); text != "300000000" {
		t.Errorf("power limit %s µW, want 300 W", text)
	}
}
