//go:build cgo

package hardware

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// There is no GPU in the machines that run these tests: NVIDIA's library is a stand-in, called as the real one
// would be, and what the kernel shows is a made-up tree of files.

const (
	firstUUID  = "GPU-11111111-aaaa-bbbb-cccc-dddddddddddd"
	secondUUID = "GPU-22222222-aaaa-bbbb-cccc-dddddddddddd"
	partA      = "MIG-aaaaaaaa-1111-5111-8111-111111111111"
	partB      = "MIG-bbbbbbbb-2222-5222-8222-222222222222"
	divided    = "GPU-22222222-aaaa-bbbb-cccc-dddddddddddd|0|" + partA + "|NVIDIA L4 MIG 1g.6gb|5000|10\n" +
		"GPU-22222222-aaaa-bbbb-cccc-dddddddddddd|4|" + partB + "|NVIDIA L4 MIG 2g.12gb|11000|1000\n"
)

// A divided GPU is its instances and never itself, and what is done to it changes no other number.
func TestSurveyDividedGPU(t *testing.T) {
	s := newShim(t, first, second)
	s.write(t, "mig", divided)
	o := Options{NVMLPath: s.library}
	got := Take(t.Context(), o)
	instance := func(index int, uuid, model string, total, free int64) GPU {
		return GPU{
			Index: index, UUID: uuid, Vendor: "nvidia", Model: model, Parent: secondUUID,
			VRAMTotalMB: &total, VRAMAvailableMB: &free, PCIBusID: new("00000000:02:00.0"),
			ComputeCapability: new("8.9"), PCIeGeneration: new(4), PCIeWidth: new(8),
		}
	}
	want := []GPU{
		instance(15, partA, "NVIDIA L4 MIG 1g.6gb", 5000, 4990),
		instance(19, partB, "NVIDIA L4 MIG 2g.12gb", 11000, 10000),
	}
	if diff := cmp.Diff(want, got.GPUs[1:]); diff != "" || got.GPUs[0].UUID != firstUUID {
		t.Errorf("first %s, instances (-want +got):\n%s", got.GPUs[0].UUID, diff)
	}
	if gaps := gpuGaps(got); len(gaps) != 0 {
		t.Errorf("gaps %+v, want none", gaps)
	}
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter(o)
		start(t, m)
		m.Use(got)
		sample := m.Sample()
		if diff := cmp.Diff([]*int64{new(int64(764)), new(int64(10)), new(int64(1000))}, sample.GPUMemoryUsedMB); diff != "" {
			t.Errorf("memory in use (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]*float64{new(61.0), new(35.0), new(35.0)}, sample.GPUTempC); diff != "" {
			t.Errorf("temperatures (-want +got):\n%s", diff)
		}
	})

	s.write(t, "mig", secondUUID+"|-1|-|-|0|0\n")
	got = Take(t.Context(), o)
	if gaps := gpuGaps(got); len(got.GPUs) != 1 || len(gaps) != 1 || gaps[0].Code != "gpu_empty" {
		t.Errorf("no instances: GPUs %s, gaps %+v, want the first alone and gpu_empty", asJSON(t, got.GPUs), gaps)
	}
}

func TestInstanceIndex(t *testing.T) {
	seen := map[int]bool{}
	for gpu := range 8 {
		for slot := range slotsPerGPU {
			index, ok := instanceIndex(8, gpu, slot)
			if !ok || index < 8 || index > mostIndex || seen[index] {
				t.Errorf("GPU %d, slot %d: %d, %v; want a number of its own from 8 to 63", gpu, slot, index, ok)
			}
			seen[index] = true
		}
	}
	for _, test := range []struct{ gpus, gpu, slot, want int }{{1, 0, 0, 8}, {4, 3, 6, 35}, {10, 0, 0, 10}, {10, 9, 0, -1}, {1, 0, 7, -1}} {
		if index, ok := instanceIndex(test.gpus, test.gpu, test.slot); ok != (test.want >= 0) || ok && index != test.want {
			t.Errorf("%+v: %d, %v", test, index, ok)
		}
	}
}

func TestInspect(t *testing.T) {
	s := newShim(t, first, second)
	o := Options{NVMLPath: s.library}
	s.write(t, "processes", firstUUID+"|C|101|300\n"+firstUUID+"|C|102|-1\n"+firstUUID+"|G|103|200\n"+secondUUID+"|C|104|1\n")
	s.write(t, "settings", firstUUID+"|compute_mode|0\n"+firstUUID+"|persistence|1\n"+firstUUID+"|ecc|1\n"+firstUUID+"|ecc_errors|3\n"+
		firstUUID+"|graphics_clock|1500\n"+firstUUID+"|memory_clock|9000\n")
	gpus := []GPU{{UUID: firstUUID}, {UUID: "GPU-99999999-aaaa-bbbb-cccc-dddddddddddd"}}
	got, err := Inspect(t.Context(), o, gpus)
	if err != nil {
		t.Fatal(err)
	}
	usual := Settings{
		PowerLimit: new(uint32(450_000)), ComputeMode: new(uint32(0)), Persistence: new(uint32(1)),
		GraphicsClock: new(uint32(1500)), MemoryClock: new(uint32(9000)), ECC: new(true),
	}
	want := []GPUState{
		{
			UUID: firstUUID, MemoryUsed: new(int64(764 << 20)), Memory: new(int64(24564 << 20)), Bus: "00000000:01:00.0",
			ECCErrors: new(uint64(3)), Settings: usual,
			Compute:  []Process{{PID: 101, Memory: new(int64(300 << 20))}, {PID: 102}},
			Graphics: []Process{{PID: 103, Memory: new(int64(200 << 20))}},
		},
		{UUID: gpus[1].UUID, Lost: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	tenants, err := Tenants(t.Context(), o, gpus)
	wantTenants := []Tenancy{
		{firstUUID, []Process{{PID: 101, Memory: new(int64(300 << 20))}, {PID: 102}}, []Process{{PID: 103, Memory: new(int64(200 << 20))}}},
		{secondUUID, []Process{{PID: 104, Memory: new(int64(1 << 20))}}, []Process{}},
	}
	if diff := cmp.Diff(wantTenants, tenants); diff != "" || err != nil {
		t.Errorf("tenants, error %v (-want +got):\n%s", err, diff)
	}

	// A tenant has changed what it could; all of it is set back.
	s.write(t, "settings", firstUUID+"|power_limit|200000\n"+firstUUID+"|compute_mode|3\n"+firstUUID+"|persistence|0\n"+
		firstUUID+"|graphics_clock|1000\n"+firstUUID+"|memory_clock|5000\n"+firstUUID+"|ecc|1\n")
	settings := func() Settings {
		t.Helper()
		states, err := Inspect(t.Context(), o, gpus[:1])
		if err != nil {
			t.Fatal(err)
		}
		return states[0].Settings
	}
	if diff := cmp.Diff([]string{"power limit", "compute mode", "persistence mode", "clocks"}, usual.Differ(settings())); diff != "" {
		t.Errorf("what differs (-want +got):\n%s", diff)
	}
	if err := Restore(t.Context(), o, gpus[0], usual); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(usual, settings()); diff != "" {
		t.Errorf("restored (-want +got):\n%s", diff)
	}
	s.write(t, "locked", "")
	if err := Restore(t.Context(), o, gpus[0], Settings{PowerLimit: new(uint32(1))}); err == nil {
		t.Error("an agent that may set nothing has restored something")
	}
}

// An instance has processes and memory of its own; a GPU that was whole a moment ago is not any more.
func TestInspectDivided(t *testing.T) {
	s := newShim(t, first, second)
	s.write(t, "mig", divided)
	s.write(t, "processes", partB+"|C|7|900\n")
	o := Options{NVMLPath: s.library}
	got, err := Inspect(t.Context(), o, []GPU{{UUID: partB}, {UUID: secondUUID}, {UUID: "MIG-cccccccc-3333-5333-8333-333333333333"}})
	if err != nil {
		t.Fatal(err)
	}
	want := GPUState{UUID: partB, MemoryUsed: new(int64(1000 << 20)), Memory: new(int64(11000 << 20)), Bus: "00000000:02:00.0", Compute: []Process{{PID: 7, Memory: new(int64(900 << 20))}}, Graphics: []Process{}}
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Errorf("instance (-want +got):\n%s", diff)
	}
	if !got[1].Divided || !got[2].Lost {
		t.Errorf("whole %+v, gone %+v, want one divided and one lost", got[1], got[2])
	}
	tenants, err := Tenants(t.Context(), o, []GPU{{UUID: partB}})
	uuids := make([]string, len(tenants))
	for i, tenancy := range tenants {
		uuids[i] = tenancy.UUID
	}
	if diff := cmp.Diff([]string{firstUUID, partA, partB}, uuids); diff != "" || err != nil {
		t.Errorf("error %v, units (-want +got):\n%s", err, diff)
	}
}

// What the library of an old driver lacks is not known, and not called.
func TestInspectOldLibrary(t *testing.T) {
	newShim(t, first)
	old := filepath.Join(t.TempDir(), "old.so")
	if err := compile(old, "-DOLD"); err != nil {
		t.Fatal(err)
	}
	got, err := Inspect(t.Context(), Options{NVMLPath: old}, []GPU{{UUID: firstUUID}})
	want := []GPUState{{UUID: firstUUID, MemoryUsed: new(int64(764 << 20)), Memory: new(int64(24564 << 20)), Bus: "00000000:01:00.0", Settings: Settings{PowerLimit: new(uint32(450_000))}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("error %v, states (-want +got):\n%s", err, diff)
	}
}

func TestInspectSilentDriver(t *testing.T) {
	s := newShim(t, first)
	o := Options{NVMLPath: s.library}
	s.write(t, "hang", "")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if got, err := Inspect(ctx, o, []GPU{{UUID: firstUUID}}); err == nil {
		t.Errorf("states %+v, want an error", got)
	}
	if err := os.Remove(filepath.Join(s.directory, "hang")); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(t.Context(), o, []GPU{{UUID: firstUUID}}); err != nil { // waits for its turn
		t.Errorf("the driver answers again: %v", err)
	}
	s.write(t, "init", "9")
	if _, err := Inspect(t.Context(), o, []GPU{{UUID: firstUUID}}); err == nil {
		t.Error("a driver that is not loaded has answered")
	}
}

func TestRunsIn(t *testing.T) {
	const ours, other = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "f123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	files := map[string]string{}
	for pid, process := range map[string]struct{ state, groups string }{
		"10": {"S", "0::/system.slice/docker-" + ours + ".scope\n"},
		"11": {"R", "12:devices:/docker/" + ours + "\n3:cpu:/docker/" + ours + "\n"},
		"12": {"S", "0::/system.slice/docker-" + other + ".scope\n"},
		"13": {"S", "0::/user.slice/user-1000.slice\n"},
		"14": {"Z", "0::/system.slice/docker-" + ours + ".scope\n"},
		"15": {"S", ""},
	} {
		files["proc/"+pid+"/stat"] = pid + " (a) Z (b) " + process.state + " 1 2 3\n"
		files["proc/"+pid+"/cgroup"] = process.groups
	}
	o := Options{root: tree(t, files)}
	for name, test := range map[string]struct {
		pid        int
		container  string
		yes, known bool
	}{
		"control groups 2":     {10, ours, true, true},
		"control groups 1":     {11, ours, true, true},
		"another container":    {12, ours, false, true},
		"a person's":           {13, ours, false, true},
		"waits to be reaped":   {14, ours, false, false},
		"hides its group":      {15, ours, false, false},
		"gone":                 {16, ours, false, false},
		"no container to find": {10, "", false, false},
		"half an id":           {10, "0123", false, false},
	} {
		if yes, known := RunsIn(o, test.pid, test.container); known != test.known || yes && !known || known && yes != test.yes {
			t.Errorf("%s: %v, known %v; want %v, %v", name, yes, known, test.yes, test.known)
		}
	}
	if !Alive(o, 10) || Alive(o, 14) || Alive(o, 16) {
		t.Errorf("alive: %v, reaped soon: %v, gone: %v", Alive(o, 10), Alive(o, 14), Alive(o, 16))
	}
	if yes, known := RunsIn(Options{}, os.Getpid(), ours); yes || !known {
		t.Errorf("this process: %v, known %v; want it known to run in no such container", yes, known)
	}
	if BootID(Options{}) == "" {
		t.Error("the system has no boot id")
	}
}

func TestXids(t *testing.T) {
	log := strings.Join([]string{
		"4,100,5000,-;NVRM: Xid (PCI:0000:01:00): 31, pid=7, name=a, Ch 00000008",
		"6,101,5001,-;usb 1-1: new device",
		" SUBSYSTEM=usb",
		"3,102,5002,-;NVRM: Xid (PCI:0000:02:00): 79, GPU has fallen off the bus.",
		"12,103,5003,-;somebody writes NVRM: Xid (PCI:0000:02:00): 79 to the log",
		"6,104,5004,c;the end",
	}, "\n") + "\n"
	o := Options{root: tree(t, map[string]string{"dev/kmsg": log})}
	all, last, err := Xids(o, -1)
	want := []Xid{{"0000:01:00", 31}, {"0000:02:00", 79}}
	if diff := cmp.Diff(want, all); diff != "" || last != 104 || err != nil {
		t.Errorf("last %d, error %v, errors (-want +got):\n%s", last, err, diff)
	}
	if later, last, err := Xids(o, 100); len(later) != 1 || later[0].Number != 79 || last != 104 || err != nil {
		t.Errorf("after 100: %v, %d, %v", later, last, err)
	}
	if none, last, err := Xids(o, 104); len(none) != 0 || last != 104 || err != nil {
		t.Errorf("after the end: %v, %d, %v", none, last, err)
	}
	if !all[0].OfProgram() || all[1].OfProgram() || !all[1].On("00000000:02:00.0") || all[1].On("00000000:01:00.0") || (Xid{}).On("x") {
		t.Errorf("judged wrongly: %+v", all)
	}
	if _, _, err := Xids(Options{root: t.TempDir()}, -1); err == nil {
		t.Error("a log that is not there was read")
	}
}

func TestRealKernelLog(t *testing.T) {
	_, last, err := Xids(Options{}, -1)
	if err != nil {
		t.Skipf("this user may not read the kernel's log: %v", err)
	}
	if _, again, err := Xids(Options{}, last); err != nil || again < last {
		t.Errorf("record %d, then %d, %v", last, again, err)
	}
}
