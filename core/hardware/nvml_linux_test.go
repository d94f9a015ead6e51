//go:build cgo

package hardware

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// shim is a stand-in for NVIDIA's library and the directory that tells it what to say. The library
// is compiled once: what a process has called of one, it keeps calling, whatever is loaded later.
type shim struct{ library, directory string }

var compileShim = sync.OnceValues(func() (string, error) {
	directory, err := os.MkdirTemp("", "nvml-shim-")
	if err != nil {
		return "", err
	}
	library := filepath.Join(directory, "nvml.so") // by no name under which the driver's would be found
	return library, compile(library)
})

func compile(library string, flags ...string) error {
	arguments := append(flags, "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, "testdata/nvml/nvml.c")
	if output, err := exec.Command("gcc", arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("compiling the stand-in for NVML: %w\n%s", err, output)
	}
	return nil
}

func TestMain(m *testing.M) {
	code := m.Run()
	if library, err := compileShim(); err == nil {
		os.RemoveAll(filepath.Dir(library))
	}
	os.Exit(code)
}

func newShim(t testing.TB, gpus ...string) shim {
	t.Helper()
	library, err := compileShim()
	if err != nil {
		t.Fatal(err)
	}
	s := shim{library, t.TempDir()}
	t.Setenv("NVML_SHIM", s.directory)
	s.plug(t, gpus...)
	return s
}

// plug makes these the GPUs there are, from now on.
func (s shim) plug(t testing.TB, gpus ...string) {
	t.Helper()
	var lines string
	for _, gpu := range gpus {
		lines += gpu + "\n"
	}
	s.write(t, "gpus", lines)
}

// write replaces a file in one step, as the library may be reading it.
func (s shim) write(t testing.TB, name, content string) {
	t.Helper()
	path := filepath.Join(s.directory, name)
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

const (
	first  = "GPU-11111111-aaaa-bbbb-cccc-dddddddddddd|NVIDIA GeForce RTX 4090|24564|764|97|61|388|450|55|8.9|00000000:01:00.0|4|16"
	second = "GPU-22222222-aaaa-bbbb-cccc-dddddddddddd|NVIDIA L4|23034|0|0|35|-1|-1|-1|8.9|00000000:02:00.0|4|8"
)

func TestSurveyTwoGPUs(t *testing.T) {
	s := newShim(t, first, second)
	got := Take(t.Context(), Options{NVMLPath: s.library})
	want := []GPU{
		{
			Index: 0, UUID: "GPU-11111111-aaaa-bbbb-cccc-dddddddddddd", Vendor: "nvidia", Model: "NVIDIA GeForce RTX 4090",
			VRAMTotalMB: new(int64(24564)), VRAMAvailableMB: new(int64(23800)), PCIBusID: new("00000000:01:00.0"),
			PowerLimitW: new(450.0), ComputeCapability: new("8.9"), PCIeGeneration: new(4), PCIeWidth: new(16),
		},
		{
			Index: 1, UUID: "GPU-22222222-aaaa-bbbb-cccc-dddddddddddd", Vendor: "nvidia", Model: "NVIDIA L4",
			VRAMTotalMB: new(int64(23034)), VRAMAvailableMB: new(int64(23034)), PCIBusID: new("00000000:02:00.0"),
			ComputeCapability: new("8.9"), PCIeGeneration: new(4), PCIeWidth: new(8),
		},
	}
	if diff := cmp.Diff(want, got.GPUs); diff != "" {
		t.Errorf("GPUs (-want +got):\n%s", diff)
	}
	if got.DriverVersion == nil || *got.DriverVersion != "580.95.05" || got.CUDAVersion == nil || *got.CUDAVersion != "12.8" {
		t.Errorf("driver %v, CUDA %v, want 580.95.05 and 12.8", got.DriverVersion, got.CUDAVersion)
	}
	wantGap := Gap{
		Code:    "gpu_incomplete",
		Message: "GPU 1 (NVIDIA L4) does not tell its power limit.",
		Fix:     "Nothing is broken; a newer NVIDIA driver may tell more.",
	}
	if diff := cmp.Diff([]Gap{wantGap}, gpuGaps(got)); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
}

// What an owner offers by index is the same card, whatever becomes of the others.
func TestLostGPUKeepsItsIndex(t *testing.T) {
	s := newShim(t, strings.Replace(first, "NVIDIA GeForce RTX 4090", "lost", 1), second)
	o := Options{NVMLPath: s.library}
	survey := Take(t.Context(), o)
	if len(survey.GPUs) != 1 || survey.GPUs[0].Index != 1 || survey.GPUs[0].Model != "NVIDIA L4" {
		t.Errorf("GPUs %s, want the L4 alone, with index 1", asJSON(t, survey.GPUs))
	}
	gaps := gpuGaps(survey)
	if len(gaps) != 2 || gaps[0].Code != "gpu_lost" || gaps[0].Message != "GPU 0 does not answer: it has fallen off the bus." {
		t.Errorf("gaps %+v, want GPU 0 lost, and one of GPU 1", gaps)
	}
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter(o)
		start(t, m)
		m.Use(survey)
		if diff := cmp.Diff([]*float64{new(35.0)}, m.Sample().GPUTempC); diff != "" {
			t.Errorf("temperatures (-want +got):\n%s", diff)
		}
	})
}

// gpuGaps leaves out the gap that depends on the machine the test runs on.
func gpuGaps(s Survey) []Gap {
	return slices.DeleteFunc(s.Gaps, func(g Gap) bool { return g.Code == "no_cpu_sensor" })
}

// What an old library lacks must not be called: that would end the process.
func TestOldLibrary(t *testing.T) {
	s := newShim(t, first)
	old := filepath.Join(t.TempDir(), "old.so")
	if err := compile(old, "-DOLD"); err != nil {
		t.Fatal(err)
	}
	o := Options{NVMLPath: old}
	survey := Take(t.Context(), o)
	if len(survey.GPUs) != 1 || survey.GPUs[0].PCIeWidth != nil || survey.GPUs[0].PowerLimitW == nil {
		t.Fatalf("GPUs %s, want one without PCIe width", asJSON(t, survey.GPUs))
	}
	if gaps := gpuGaps(survey); len(gaps) != 1 || gaps[0].Message != "GPU 0 (NVIDIA GeForce RTX 4090) does not tell its PCIe generation, PCIe width." {
		t.Errorf("gaps %+v, want one that names generation and width", gaps)
	}
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter(o)
		stop := start(t, m)
		m.Use(survey)
		if sample := m.Sample(); sample.GPUFanPercent[0] != nil || sample.GPUTempC[0] == nil {
			t.Errorf("sample %s, want a temperature and no fan", asJSON(t, sample))
		}
		stop()
	})
	if open, err := os.ReadFile(filepath.Join(s.directory, "open")); err != nil || string(open) != "0" {
		t.Errorf("sessions left open: %s, %v", open, err)
	}
}

func TestSurveyWithoutDriver(t *testing.T) {
	s := newShim(t)
	notNVML := filepath.Join(t.TempDir(), "not-nvml.so")
	if output, err := exec.Command("gcc", "-shared", "-o", notNVML, "-x", "c", os.DevNull).CombinedOutput(); err != nil {
		t.Fatalf("compiling an empty library: %v\n%s", err, output)
	}
	for _, test := range []struct {
		name     string
		library  string
		init     string
		wantCode string
	}{
		{"driver not loaded", s.library, "9", "driver_not_loaded"},
		{"driver updated under its feet", s.library, "18", "driver_mismatch"},
		{"no permission", s.library, "4", "gpu_no_permission"},
		{"unknown trouble", s.library, "999", "driver_failed"},
		{"no GPU", s.library, "0", "no_gpu"},
		{"no library", "/nonexistent/libnvidia-ml.so.1", "0", "nvml_missing"},
		{"another library", notNVML, "0", "driver_too_old"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.write(t, "init", test.init)
			got := Take(t.Context(), Options{NVMLPath: test.library})
			gaps := gpuGaps(got)
			if len(gaps) != 1 || gaps[0].Code != test.wantCode || gaps[0].Fix == "" {
				t.Errorf("gaps %+v, want one %s with a fix", gaps, test.wantCode)
			}
			if got.GPUs == nil || len(got.GPUs) != 0 || got.DriverVersion != nil || got.CUDAVersion != nil {
				t.Errorf("GPUs %v, driver %v, CUDA %v, want an empty list and nothing", got.GPUs, got.DriverVersion, got.CUDAVersion)
			}
		})
	}
}

func TestMeterReadsGPUs(t *testing.T) {
	s := newShim(t, first, second)
	synctest.Test(t, func(t *testing.T) {
		o := Options{NVMLPath: s.library}
		m := NewMeter(o)
		start(t, m)
		m.Use(Take(t.Context(), o))
		next := func() Sample {
			time.Sleep(sampleKeeps)
			return m.Sample()
		}
		onlyGPUs := cmpopts.IgnoreFields(Sample{}, "CPUTempC", "CPUUtilization", "RAMUsageMB", "DiskUsageGB", "NetRxBytes", "NetTxBytes", "At")
		both := Sample{
			GPUTempC: []*float64{new(61.0), new(35.0)}, GPUUtilization: []*float64{new(97.0), new(0.0)},
			GPUMemoryUsedMB: []*int64{new(int64(764)), new(int64(0))},
			GPUPowerW:       []*float64{new(388.0), nil}, GPUFanPercent: []*float64{new(55.0), nil},
		}
		if diff := cmp.Diff(both, next(), onlyGPUs); diff != "" {
			t.Errorf("both there (-want +got):\n%s", diff)
		}

		s.plug(t, second) // the first falls off the bus: its place stays
		firstLost := Sample{
			GPUTempC: []*float64{nil, new(35.0)}, GPUUtilization: []*float64{nil, new(0.0)},
			GPUMemoryUsedMB: []*int64{nil, new(int64(0))},
			GPUPowerW:       []*float64{nil, nil}, GPUFanPercent: []*float64{nil, nil},
		}
		if diff := cmp.Diff(firstLost, next(), onlyGPUs); diff != "" {
			t.Errorf("first lost (-want +got):\n%s", diff)
		}

		s.plug(t, first, second) // and comes back
		if diff := cmp.Diff(both, next(), onlyGPUs); diff != "" {
			t.Errorf("first back (-want +got):\n%s", diff)
		}
	})
}

// A driver that is gone, for an update say, is opened anew some time after it is back.
func TestMeterReopensDriver(t *testing.T) {
	s := newShim(t, first)
	synctest.Test(t, func(t *testing.T) {
		o := Options{NVMLPath: s.library}
		survey := Take(t.Context(), o)
		s.write(t, "init", "9")
		m := NewMeter(o)
		start(t, m)
		m.Use(survey)
		if m.Sample().GPUTempC[0] != nil {
			t.Error("driver not loaded: a temperature, want none")
		}
		s.write(t, "init", "0")
		time.Sleep(reopenGPUsAfter - time.Second)
		if m.Sample().GPUTempC[0] != nil {
			t.Error("driver tried again too soon")
		}
		time.Sleep(time.Second)
		if m.Sample().GPUTempC[0] == nil {
			t.Error("driver back: no temperature")
		}
	})
}

func TestHangingDriver(t *testing.T) {
	s := newShim(t, first)
	o := Options{NVMLPath: s.library}
	m := NewMeter(o)
	m.swap(openSystem(m.options))
	defer func() {
		m.swap(nil).close()
		m.gpus.close()
	}()
	m.Use(Take(t.Context(), o))
	s.write(t, "hang", "")

	start := time.Now()
	sample := m.Sample()
	if took := time.Since(start); took < readGPUsWithin || took > 5*readGPUsWithin {
		t.Errorf("first sample took %v, want about %v", took, readGPUsWithin)
	}
	if len(sample.GPUTempC) != 1 || sample.GPUTempC[0] != nil || sample.RAMUsageMB == nil {
		t.Errorf("sample %+v, want nil for the GPU and a value for the rest", sample)
	}

	start = time.Now()
	for range 100 {
		m.forget()
		m.Sample()
	}
	if took := time.Since(start); took > readGPUsWithin {
		t.Errorf("later samples took %v together, want no more waiting", took)
	}
	impatient, cancel := context.WithTimeout(t.Context(), readGPUsWithin/2)
	defer cancel()
	survey := Take(impatient, o)
	if impatient.Err() == nil {
		t.Error("the survey has given up, want it to wait for as long as it may")
	}
	if took := time.Since(start); took > 2*readGPUsWithin {
		t.Errorf("later samples and a survey took %v together, want about %v", took, readGPUsWithin/2)
	}
	if gaps := gpuGaps(survey); len(gaps) != 1 || gaps[0].Code != "driver_hangs" {
		t.Errorf("gaps %+v, want driver_hangs", gaps)
	}

	if err := os.Remove(filepath.Join(s.directory, "hang")); err != nil {
		t.Fatal(err)
	}
	if survey := Take(t.Context(), o); len(survey.GPUs) != 1 {
		t.Errorf("the driver answers again: survey %s, want one GPU", asJSON(t, survey))
	}
	for deadline := time.Now().Add(10 * time.Second); sample.GPUTempC[0] == nil; sample = m.Sample() {
		if time.Now().After(deadline) {
			t.Fatal("the driver answers again, but the meter does not read it")
		}
		runtime.Gosched()
		m.forget()
	}
}

func BenchmarkSampleTwoGPUs(b *testing.B) {
	s := newShim(b, first, second)
	o := Options{NVMLPath: s.library}
	m := NewMeter(o)
	m.swap(openSystem(m.options))
	m.Use(Take(b.Context(), o))
	b.ReportAllocs()
	for b.Loop() {
		m.forget()
		m.Sample()
	}
	m.swap(nil).close()
	m.gpus.close()
}
