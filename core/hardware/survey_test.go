package hardware

import (
	"encoding/json"
	"path/filepath"
	"runtime"
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
	if there.System.DiskTotalGB == nil || toBe.System.DiskTotalGB == nil || *there.System.DiskTotalGB != *toBe.System.DiskTotalGB {
		t.Errorf("disk %s, want that of its parent, %s", asJSON(t, toBe.System), asJSON(t, there.System))
	}
	m := NewMeter(Options{})
	m.swap(openSystem(m.options))
	defer func() { m.swap(nil).close() }()
	m.Use(toBe)
	if m.Sample().DiskUsageGB == nil {
		t.Error("the meter does not know how full it is")
	}
}

func BenchmarkTake(b *testing.B) {
	for b.Loop() {
		Take(b.Context(), Options{})
	}
}
