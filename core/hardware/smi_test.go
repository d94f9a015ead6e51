//go:build unix

package hardware

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

// standIn puts a stand-in for nvidia-smi on the search path, the only program there. It answers
// with the files of the directory given back, and notes there how it was called. Readings wait for
// a line from the pipe "slow", if there is one.
func standIn(t *testing.T, answers map[string]string) (driver *smiDriver, directory string) {
	t.Helper()
	directory = t.TempDir()
	script := strings.ReplaceAll(`#!/bin/sh
echo "$*" >>DIRECTORY/calls
case "$*" in
*compute_cap*) answer=full ;;
*driver_version*) answer=basic ;;
*temperature*) answer=readings ;;
*compute-apps*) answer=apps ;;
*ecc.errors*) answer=state ;;
-L) answer=list ;;
*) answer=report ;;
esac
[ $answer = readings ] && [ -p DIRECTORY/slow ] && read -r line <DIRECTORY/slow
[ -r DIRECTORY/$answer ] || { echo "Field \"compute_cap\" is not a valid field to query."; exit 2; }
while IFS= read -r line; do echo "$line"; done <DIRECTORY/$answer
`, "DIRECTORY", directory)
	for name, text := range answers {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(directory, "nvidia-smi"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", directory)
	driver, ok := findSMI()
	if !ok {
		t.Fatal("the stand-in for nvidia-smi is not found")
	}
	return driver, directory
}

func calls(t *testing.T, directory string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(directory, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

const (
	smiReport   = "\n==============NVSMI LOG==============\n\nTimestamp      : Mon Nov 23 15:04:05 2026\nDriver Version : 580.95.05\nCUDA Version   : 12.8\n\nAttached GPUs  : 2\n"
	smiFull     = "0, GPU-1, NVIDIA GeForce RTX 4090, 580.95.05, 24564, 23800, 00000000:01:00.0, 450.00, 8.9, 4, 16\n" + smiSecond
	smiSecond   = "1, GPU-2, NVIDIA L4, 580.95.05, 23034, 23034, 00000000:02:00.0, [N/A], 8.9, 4, 8\n"
	smiBasic    = "0, GPU-1, Tesla K80, 470.256.02, 11441, 11441, 00000000:01:00.0\n"
	smiReadings = "GPU-1, 61, 97, 388.10, 55, 764\nGPU-2, 35, [Not Supported], [N/A], [Unknown Error], 0\n"
)

func TestSMISurvey(t *testing.T) {
	for _, test := range []struct {
		name     string
		answers  map[string]string
		want     []GPU
		cuda     *string
		wantGaps []string
	}{
		{
			"two GPUs",
			map[string]string{"full": smiFull, "report": smiReport},
			[]GPU{
				{
					Index: 0, UUID: "GPU-1", Vendor: "nvidia", Model: "NVIDIA GeForce RTX 4090",
					VRAMTotalMB: new(int64(24564)), VRAMAvailableMB: new(int64(23800)), PCIBusID: new("00000000:01:00.0"),
					PowerLimitW: new(450.0), ComputeCapability: new("8.9"), PCIeGeneration: new(4), PCIeWidth: new(16),
				},
				{
					Index: 1, UUID: "GPU-2", Vendor: "nvidia", Model: "NVIDIA L4",
					VRAMTotalMB: new(int64(23034)), VRAMAvailableMB: new(int64(23034)), PCIBusID: new("00000000:02:00.0"),
					ComputeCapability: new("8.9"), PCIeGeneration: new(4), PCIeWidth: new(8),
				},
			},
			new("12.8"),
			[]string{"gpu_incomplete"},
		},
		{
			"an old program",
			map[string]string{"basic": smiBasic},
			[]GPU{{
				UUID: "GPU-1", Vendor: "nvidia", Model: "Tesla K80", VRAMTotalMB: new(int64(11441)),
				VRAMAvailableMB: new(int64(11441)), PCIBusID: new("00000000:01:00.0"),
			}},
			nil,
			[]string{"gpu_incomplete", "driver_version_unknown"},
		},
		{
			"one GPU fell off the bus",
			map[string]string{"full": "Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost.\n" + smiFull, "report": smiReport},
			nil, new("12.8"),
			[]string{"gpu_lost", "gpu_incomplete"},
		},
		{
			"the first of two fell off the bus",
			map[string]string{"full": "Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost.\n" + smiSecond, "report": smiReport},
			[]GPU{{
				Index: 1, UUID: "GPU-2", Vendor: "nvidia", Model: "NVIDIA L4",
				VRAMTotalMB: new(int64(23034)), VRAMAvailableMB: new(int64(23034)), PCIBusID: new("00000000:02:00.0"),
				ComputeCapability: new("8.9"), PCIeGeneration: new(4), PCIeWidth: new(8),
			}},
			new("12.8"),
			[]string{"gpu_lost", "gpu_incomplete"},
		},
		{"driver in trouble", nil, []GPU{}, nil, []string{"driver_failed"}},
		{"no GPU", map[string]string{"full": "\n"}, []GPU{}, nil, []string{"no_gpu"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			driver, _ := standIn(t, test.answers)
			got := driver.survey()
			if test.want != nil {
				if diff := cmp.Diff(test.want, got.gpus, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("GPUs (-want +got):\n%s", diff)
				}
			}
			if diff := cmp.Diff(test.cuda, got.cudaVersion); diff != "" {
				t.Errorf("CUDA version (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.wantGaps, codes(got.gaps)); diff != "" {
				t.Errorf("gaps (-want +got):\n%s", diff)
			}
		})
	}
}

func codes(gaps []Gap) (codes []string) {
	for _, g := range gaps {
		codes = append(codes, g.Code)
	}
	return codes
}

func TestSMIServesWithoutLibrary(t *testing.T) {
	if library, err := openNVML(""); err == nil {
		library.close()
		t.Skip("this machine has NVIDIA's library")
	}
	standIn(t, map[string]string{"full": smiFull, "report": smiReport})
	if got := Take(t.Context(), Options{}); len(got.GPUs) != 2 || got.DriverVersion == nil || *got.DriverVersion != "580.95.05" {
		t.Errorf("survey %s, want two GPUs and driver 580.95.05", asJSON(t, got))
	}
}

func TestSMIStartsAtMostEveryFiveSeconds(t *testing.T) {
	driver, directory := standIn(t, map[string]string{"readings": smiReadings})
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter(Options{})
		m.gpus.driver = driver
		start(t, m)
		m.Use(Survey{GPUs: []GPU{{UUID: "GPU-2"}, {UUID: "GPU-gone"}, {UUID: "GPU-1"}}, System: System{DiskPath: "/"}})
		for range 10 { // seconds
			sample := m.Sample()
			if diff := cmp.Diff([]*float64{new(35.0), nil, new(61.0)}, sample.GPUTempC); diff != "" {
				t.Fatalf("temperatures (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]*float64{nil, nil, new(388.1)}, sample.GPUPowerW); diff != "" {
				t.Fatalf("power (-want +got):\n%s", diff)
			}
			time.Sleep(time.Second)
		}
	})
	if got := calls(t, directory); len(got) != 2 {
		t.Errorf("started %d times in 10 s, want 2: %q", len(got), got)
	}
}

// A program slower than a sample may wait is no driver that hangs: its answer is for the next sample,
// and serves until there is a newer one.
func TestSlowSMI(t *testing.T) {
	if library, err := openNVML(""); err == nil {
		library.close()
		t.Skip("this machine has NVIDIA's library")
	}
	driver, directory := standIn(t, map[string]string{"full": smiFull, "report": smiReport, "readings": smiReadings})
	slow := filepath.Join(directory, "slow")
	if err := unix.Mkfifo(slow, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(slow, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	answers := func() {
		t.Helper()
		if _, err := pipe.WriteString("\n"); err != nil {
			t.Fatal(err)
		}
	}
	m := NewMeter(Options{})
	m.swap(openSystem(m.options))
	m.gpus.driver = driver
	defer func() {
		m.swap(nil).close()
		m.gpus.close()
	}()
	m.Use(Survey{GPUs: []GPU{{UUID: "GPU-2"}, {UUID: "GPU-1"}}, System: System{DiskPath: "/"}})
	temperatures := func() []*float64 {
		m.forget()
		return m.Sample().GPUTempC
	}
	age := func(by time.Duration) { driver.latest.at = driver.latest.at.Add(-by) } // nobody reads meanwhile

	if diff := cmp.Diff([]*float64{nil, nil}, temperatures()); diff != "" {
		t.Errorf("no answer yet (-want +got):\n%s", diff)
	}
	if survey := Take(t.Context(), Options{}); len(survey.GPUs) != 2 {
		t.Errorf("a survey meanwhile: %s, want two GPUs", asJSON(t, survey))
	}
	answers()
	want := []*float64{new(35.0), new(61.0)}
	got := temperatures()
	for deadline := time.Now().Add(10 * time.Second); got[0] == nil; got = temperatures() {
		if time.Now().After(deadline) {
			t.Fatal("the program has answered, but no sample tells")
		}
		runtime.Gosched()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answered late (-want +got):\n%s", diff)
	}

	age(smiAnswerKeeps)
	if diff := cmp.Diff(want, temperatures()); diff != "" {
		t.Errorf("the next answer is late (-want +got):\n%s", diff)
	}
	age(smiAnswerServes)
	if diff := cmp.Diff([]*float64{nil, nil}, temperatures()); diff != "" {
		t.Errorf("the last answer is too old (-want +got):\n%s", diff)
	}
	answers()
	if got := calls(t, directory); len(got) != 4 { // two of the survey
		t.Errorf("started %d times, want 4: %q", len(got), got)
	}
}

// What the agent was given in its environment is nobody's business.
func TestSMIGetsNoSecrets(t *testing.T) {
	t.Setenv("HOST_API_KEY", "dc_secret")
	driver, directory := standIn(t, nil)
	script := "#!/bin/sh\nset >" + filepath.Join(directory, "calls") + "\n"
	if err := os.WriteFile(filepath.Join(directory, "nvidia-smi"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	driver.survey()
	if got := strings.Join(calls(t, directory), "\n"); strings.Contains(got, "dc_secret") || !strings.Contains(got, "LC_ALL") {
		t.Errorf("its environment:\n%s", got)
	}
}

func TestSMIDividedGPU(t *testing.T) {
	driver, _ := standIn(t, map[string]string{
		"full": "0, GPU-1, NVIDIA L4, 580.95.05, 23034, 23034, 00000000:01:00.0, 72.00, 8.9, 4, 16, [N/A]\n" +
			"1, GPU-2, NVIDIA A30, 580.95.05, 24576, 24000, 00000000:02:00.0, 165.00, 8.0, 4, 16, Enabled\n" +
			"2, GPU-3, NVIDIA A30, 580.95.05, 24576, 24576, 00000000:03:00.0, 165.00, 8.0, 4, 16, Enabled\n",
		"report": smiReport,
		"list": "GPU 0: NVIDIA L4 (UUID: GPU-1)\nGPU 1: NVIDIA A30 (UUID: GPU-2)\n" +
			"  MIG 1g.6gb      Device  0: (UUID: MIG-a1)\n  MIG 2g.12gb     Device  1: (UUID: MIG-b2)\nGPU 2: NVIDIA A30 (UUID: GPU-3)\n",
	})
	got := driver.survey()
	part := func(index int, uuid, model string) GPU {
		return GPU{
			Index: index, UUID: uuid, Vendor: "nvidia", Model: model, Parent: "GPU-2", PCIBusID: new("00000000:02:00.0"),
			ComputeCapability: new("8.0"), PCIeGeneration: new(4), PCIeWidth: new(16),
		}
	}
	want := []GPU{part(15, "MIG-a1", "NVIDIA A30 MIG 1g.6gb"), part(16, "MIG-b2", "NVIDIA A30 MIG 2g.12gb")}
	if diff := cmp.Diff(want, got.gpus[1:]); diff != "" || got.gpus[0].UUID != "GPU-1" {
		t.Errorf("first %s, instances (-want +got):\n%s", got.gpus[0].UUID, diff)
	}
	var codes []string
	for _, gap := range got.gaps {
		codes = append(codes, gap.Code)
	}
	if diff := cmp.Diff([]string{"gpu_incomplete", "gpu_incomplete", "gpu_empty"}, codes); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
}

func TestSMIInspect(t *testing.T) {
	driver, _ := standIn(t, map[string]string{
		"state": "GPU-1, 764, 24564, 0\nGPU-2, 0, [N/A], [N/A]\n",
		"apps":  "GPU-1, 4711, 300\nGPU-1, 4712, [N/A]\n",
	})
	want := []GPUState{
		{UUID: "GPU-2", MemoryUsed: new(int64(0)), Compute: []Process{}},
		{
			UUID: "GPU-1", MemoryUsed: new(int64(764 << 20)), Memory: new(int64(24564 << 20)), ECCErrors: new(uint64(0)),
			Compute: []Process{{PID: 4711, Memory: new(int64(300 << 20))}, {PID: 4712}},
		},
		{UUID: "GPU-3", Lost: true},
		{UUID: "MIG-a1"},
	}
	if diff := cmp.Diff(want, driver.inspect([]string{"GPU-2", "GPU-1", "GPU-3", "MIG-a1"})); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	wantTenants := []Tenancy{{UUID: "GPU-1", Compute: []Process{{PID: 4711, Memory: new(int64(300 << 20))}, {PID: 4712}}}}
	if diff := cmp.Diff(wantTenants, driver.tenants()); diff != "" {
		t.Errorf("tenants (-want +got):\n%s", diff)
	}
}
