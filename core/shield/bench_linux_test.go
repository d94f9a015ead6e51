package shield

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crowded is how many rentals the shield is looked at with.
const crowded = 50

// BenchmarkLook is one look at the shield: its processor time is what matters, as it is made again and again.
func BenchmarkLook(b *testing.B) {
	measure(b, func() error { _, err := Observe(b.Context(), Direct{}); return err })
}

// BenchmarkGeneration is what tells every second that no look is needed.
func BenchmarkGeneration(b *testing.B) {
	measure(b, func() error { _, err := Direct{}.Generation(b.Context()); return err })
}

// BenchmarkGlance is what tells so before a start.
func BenchmarkGlance(b *testing.B) {
	measure(b, func() error { _, err := Glance(b.Context(), Direct{}); return err })
}

// measure reports the processor time of one call among a crowd of rentals, in a process that has a network to itself:
// a thread that has one is tied to its goroutine, and much time goes into that.
func measure(b *testing.B, call func() error) {
	if os.Getenv("SHIELD_BENCHMARK") == "" {
		measureApart(b)
		return
	}
	crowd(b)
	b.ResetTimer()
	before := used(b)
	for range b.N {
		if err := call(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(used(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
}

// measureApart reports what this benchmark reports in a process and a network of its own.
func measureApart(b *testing.B) {
	again := exec.CommandContext(b.Context(), "/proc/self/exe", "-test.run", "^$", "-test.bench", "^"+b.Name()+"$")
	again.Env = append(os.Environ(), "SHIELD_BENCHMARK=1")
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := again.CombinedOutput()
	if err != nil {
		b.Fatalf("in a network of its own (needs root): %v\n%s", err, out)
	}
	found := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if !strings.HasPrefix(line, b.Name()) {
			continue
		}
		for i := 3; i < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i-1], 64)
			if err != nil {
				b.Fatalf("reading %q: %v", line, err)
			}
			b.ReportMetric(value, fields[i])
			found[fields[i]] = true
		}
	}
	if !found["cpu-ms/op"] {
		b.Fatalf("no processor time among:\n%s", out)
	}
}

// crowd puts the shield up among bridges of rentals, of which each was turned away before.
func crowd(b *testing.B) {
	b.Helper()
	if _, err := Raise(b.Context(), Direct{}, policy); err != nil {
		b.Fatal(err)
	}
	if _, err := net.InterfaceByName("gr-0"); err != nil { // the first round
		var batch strings.Builder
		for i := range crowded {
			fmt.Fprintf(&batch, "link add gr-%d type bridge\naddr add 10.8.%d.1/24 dev gr-%d\nlink set gr-%d up\n", i, i, i, i)
		}
		making := exec.Command("ip", "-batch", "-")
		making.Stdin = strings.NewReader(batch.String())
		if out, err := making.CombinedOutput(); err != nil {
			b.Fatalf("making bridges: %v %s", err, out)
		}
	}
	for i := range crowded {
		knocks(b, netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}), 1)
	}
	for late := time.Now().Add(long); ; time.Sleep(10 * time.Millisecond) {
		blocked, err := Direct{}.Blocked(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if len(blocked) == crowded {
			return
		}
		if time.Now().After(late) {
			b.Fatalf("%d of %d rentals were turned away", len(blocked), crowded)
		}
	}
}

// used is the processor time of this process so far, in nanoseconds.
func used(b *testing.B) int64 {
	b.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}
