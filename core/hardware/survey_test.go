package hardware

import (
	"encoding/json"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
)

func TestSurveyOfThisMachine(t *testing.T) {
	start := time.Now()
	s := Take(t.Context(), Options{})
	t.Logf("took %v", time.Since(start))

	if s.GPUs == nil || s.Gaps == nil {
		t.Error("GPUs or gaps are null, want lists")
	}
	sys := s.System
	if sys.OS != runtime.GOOS || sys.DiskPath == "" {
		t.Errorf("OS %q, disk path %q", sys.OS, sys.DiskPath)
	}
	if sys.CPUThreads == nil || *sys.CPUThreads < 1 || sys.CPUCores == nil || *sys.CPUCores > *sys.CPUThreads {
		t.Errorf("implausible processor: %s", asJSON(t, sys))
	}
	if sys.RAMTotalMB == nil || sys.RAMAvailableMB == nil || *sys.RAMAvailableMB < 1 || *sys.RAMAvailableMB > *sys.RAMTotalMB {
		t.Errorf("implausible memory: %s", asJSON(t, sys))
	}
	if sys.DiskTotalGB == nil || sys.DiskAvailableGB == nil || *sys.DiskAvailableGB > *sys.DiskTotalGB {
		t.Errorf("implausible disk: %s", asJSON(t, sys))
	}
	if sys.OSVersion == nil || sys.Kernel == nil || sys.Virtualized == nil {
		t.Errorf("implausible system: %s", asJSON(t, sys))
	}
	for _, g := range s.Gaps {
		if g.Code == "" || g.Message == "" || g.Fix == "" {
			t.Errorf("gap without code, message or fix: %+v", g)
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSurveyOfDiskToBe(t *testing.T) {
	directory := t.TempDir()
	there := Take(t.Context(), Options{DiskPath: directory})
	toBe := Take(t.Context(), Options{DiskPath: filepath.Join(directory, "not", "yet")})
	m := NewMeter(Options{})
	m.swap(openSystem(m.options))
	defer func() { m.swap(nil).close() }()
	m.Use(toBe)
	if runtime.GOOS != "linux" { // there it would be in the container engine's virtual machine
		inVM := slices.ContainsFunc(toBe.Gaps, func(g Gap) bool { return g.Code == "disk_unknown" })
		if there.System.DiskTotalGB == nil || toBe.System.DiskTotalGB != nil || toBe.System.DiskAvailableGB != nil || !inVM {
			t.Errorf("disk %s, gaps %+v, want a gap and no disk", asJSON(t, toBe.System), toBe.Gaps)
		}
		if usage := m.Sample().DiskUsageGB; usage != nil {
			t.Errorf("the meter tells %d GiB of a disk that is not here", *usage)
		}
		return
	}
	if there.System.DiskTotalGB == nil || toBe.System.DiskTotalGB == nil || *there.System.DiskTotalGB != *toBe.System.DiskTotalGB {
		t.Errorf("disk %s, want that of its parent, %s", asJSON(t, toBe.System), asJSON(t, there.System))
	}
	if m.Sample().DiskUsageGB == nil {
		t.Error("the meter does not know how full it is")
	}
}

func TestDiskOf(t *testing.T) {
	there := t.TempDir()
	toBe := filepath.Join(there, "not", "yet")
	for _, test := range []struct {
		path, system string
		want         string
		here         bool
	}{
		{there, "linux", there, true},
		{toBe, "linux", there, true},
		{there, "windows", there, true},
		{toBe, "windows", toBe, false},
		{toBe, "darwin", toBe, false},
	} {
		if got, here := diskOf(test.path, test.system); got != test.want || here != test.here {
			t.Errorf("%s on %s: %s, %v, want %s, %v", test.path, test.system, got, here, test.want, test.here)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	for b.Loop() {
		Take(b.Context(), Options{})
	}
}
