//go:build cgo

package lending

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/rental"
)

// A desk on NVIDIA's library, for which the one stands in that the tests of package hardware compile, and on
// this machine's kernel: the processes are real ones. No GPU has been seen by this.
func TestDeskOnNVML(t *testing.T) {
	directory := t.TempDir()
	library := filepath.Join(directory, "nvml.so")
	if output, err := exec.Command("gcc", "-shared", "-fPIC", "-o", library, "../hardware/testdata/nvml/nvml.c").CombinedOutput(); err != nil {
		t.Fatalf("compiling the stand-in for NVML: %v\n%s", err, output)
	}
	t.Setenv("NVML_SHIM", directory)
	const uuid = "GPU-11111111-aaaa-bbbb-cccc-dddddddddddd"
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(directory, name)
		if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	gpu := func(used int) {
		write("gpus", fmt.Sprintf("%s|NVIDIA L4|23034|%d|0|35|70|72|-1|8.9|00000000:01:00.0|4|8\n", uuid, used))
	}
	program := exec.Command("sleep", "600")
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Process.Kill() }()

	synctest.Test(t, func(t *testing.T) {
		d, err := Open(Options{Dir: t.TempDir(), Machine: This(hardware.Options{NVMLPath: library})})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		rented := []rental.GPU{{Index: 0, UUID: uuid}}
		gpu(300)
		lend(t, d, "r-1", rented...)
		write("settings", uuid+"|power_limit|40000\n")
		write("processes", fmt.Sprintf("%s|C|%d|1000\n", uuid, program.Process.Pid))
		gpu(1300)
		if err := d.Return(t.Context(), "r-1", rented); err != nil {
			t.Fatal(err)
		}
		troubles := d.Troubles()
		if len(troubles) != 1 || !strings.Contains(troubles[0].Message, fmt.Sprintf("process %d", program.Process.Pid)) {
			t.Fatalf("troubles %+v, want process %d named", troubles, program.Process.Pid)
		}

		// It ends, but its parent does not reap it yet: nothing runs any more, and the driver may go on listing it.
		// Its memory stays in use.
		if err := program.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for hardware.Alive(hardware.Options{}, program.Process.Pid) {
			_ = os.Getpid() // the kernel is at it
		}
		write("processes", "")
		d.review(t.Context())
		if troubles := d.Troubles(); len(troubles) != 1 || !strings.Contains(troubles[0].Message, "1000 MiB more than before") {
			t.Fatalf("troubles %+v, want the memory that is left", troubles)
		}
		gpu(310)
		d.review(t.Context())
		expectSetBack := func() {
			t.Helper()
			if troubles := d.Troubles(); len(troubles) != 0 {
				t.Errorf("troubles %+v, want none", troubles)
			}
			text, err := os.ReadFile(filepath.Join(directory, "settings"))
			if err != nil || !strings.HasSuffix(string(text), uuid+"|power_limit|72000\n") {
				t.Errorf("settings %q, %v; want the power limit set back", text, err)
			}
		}
		expectSetBack()

		// The same once more, with settings alone.
		lend(t, d, "r-2", rented...)
		write("settings", uuid+"|power_limit|40000\n")
		if err := d.Return(t.Context(), "r-2", rented); err != nil {
			t.Fatal(err)
		}
		expectSetBack()
	})
}
