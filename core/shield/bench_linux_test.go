package shield

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkLook is one check of the shield: its processor time is what matters, as it is made again and again.
func BenchmarkLook(b *testing.B) {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		b.Fatal(err)
	}
	if _, err := (Direct{}).Apply(b.Context(), policy); err != nil {
		b.Fatal(err)
	}
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := (Direct{}).Look(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(used)/float64(b.N)/1e6, "cpu-ms/look")
}
