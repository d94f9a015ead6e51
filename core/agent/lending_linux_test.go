//go:build cgo

package agent

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/core/hardware"
	"github.com/distributedcompute/host-agent/core/lending"
	"github.com/distributedcompute/host-agent/core/rental"
)

// nvml is a stand-in for NVIDIA's library, the one that the tests of package hardware use, with two GPUs. There is
// no real GPU in the machines that run these tests.
type nvml struct {
	t                  *testing.T
	library, directory string
}

const (
	uuid0 = "GPU-11111111-aaaa-bbbb-cccc-dddddddddddd"
	uuid1 = "GPU-22222222-aaaa-bbbb-cccc-dddddddddddd"
)

func newNVML(t *testing.T) nvml {
	t.Helper()
	directory := t.TempDir()
	n := nvml{t, filepath.Join(directory, "nvml.so"), directory}
	if output, err := exec.Command("gcc", "-shared", "-fPIC", "-o", n.library, "../hardware/testdata/nvml/nvml.c").CombinedOutput(); err != nil {
		t.Fatalf("compiling the stand-in for NVML: %v\n%s", err, output)
	}
	t.Setenv("NVML_SHIM", directory)
	n.write("gpus", uuid0+"|NVIDIA L4|23034|0|0|35|70|72|-1|8.9|00000000:01:00.0|4|8\n"+uuid1+"|NVIDIA L4|23034|0|0|35|70|72|-1|8.9|00000000:02:00.0|4|8\n")
	return n
}

func (n nvml) write(name, content string) {
	n.t.Helper()
	path := filepath.Join(n.directory, name)
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		n.t.Fatal(err)
	}
}

// A GPU on which a process is left after its rental is not rented again before that has ended; the backend and
// the owner are told, also by the next agent.
func TestGPUThatDoesNotComeBackClean(t *testing.T) {
	driver := newNVML(t)
	left := exec.Command("sleep", "600")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = left.Process.Kill() }()
	onRig(t, func(t *testing.T, m *rig) {
		o := hardware.Options{NVMLPath: driver.library}
		m.survey = func(ctx context.Context, _ string) hardware.Survey {
			return *with(new(testSurvey()), func(s *hardware.Survey) { s.GPUs = hardware.Take(ctx, o).GPUs })
		}
		state := t.TempDir()
		boot := func() (*session, *lending.Desk) {
			t.Helper()
			desk, err := lending.Open(lending.Options{Dir: state, Machine: lending.This(o)})
			if err != nil {
				t.Fatal(err)
			}
			m.devices = desk
			m.parts = func(p *Parts) { p.GPUs = desk }
			return m.boot(), desk
		}
		rent := func(id string, port uint16) *protocol.StartInstance {
			start := order(id)
			start.GPUIndices = []int{1}
			start.PortMapping = protocol.PortMapping{{Port: 22, Protocol: "tcp"}: port}
			return start
		}
		offered := func(s *session, want ...int) {
			t.Helper()
			if diff := cmp.Diff(want, s.Status().Offer.GPUIndices); diff != "" {
				t.Errorf("offered GPUs (-want +got):\n%s", diff)
			}
		}
		s, desk := boot()
		offered(s, 0, 1)
		s.mustOK(rent("r-1", 10022))
		driver.write("processes", fmt.Sprintf("%s|C|%d|100\n", uuid1, left.Process.Pid))
		s.mustOK(&protocol.StopInstance{RentalID: "r-1"})
		if got := s.state("r-1"); got != rental.Stopping {
			t.Errorf("the rental is %s while its GPU is waited for, want stopping", got)
		}
		s.mustRefuse(protocol.GPUUnavailable, rent("r-2", 10023)) // nor is the GPU free yet
		pass(25 * time.Second)
		if got := s.state("r-1"); got != rental.Stopped {
			t.Fatalf("the rental is %s, want stopped: how its GPU is does not concern it", got)
		}

		named := fmt.Sprintf("process %d", left.Process.Pid)
		told := func(s *session) {
			t.Helper()
			offered(s, 0)
			if message := s.mustRefuse(protocol.GPUUnavailable, rent("r-2", 10023)); !strings.Contains(message, named) {
				t.Errorf("refused with %q, want %q named", message, named)
			}
			problems := s.Status().Problems
			if len(problems) != 1 || problems[0].Code != "gpu_withheld" || !strings.Contains(problems[0].Message, named) || problems[0].Fix == "" {
				t.Errorf("problems %+v, want gpu_withheld with %q and what to do", problems, named)
			}
			r, _ := s.link.lastRegister()
			if w := r.Hardware.Warnings; len(w) != 1 || w[0].Code != "gpu_withheld" || len(r.Hardware.GPUs) != 2 {
				t.Errorf("registered with %d GPUs and warnings %+v, want both and one warning", len(r.Hardware.GPUs), w)
			}
		}
		told(s)
		s.leave()
		desk.Close()
		s, desk = boot()
		defer desk.Close()
		told(s)

		driver.write("processes", "")
		pass(time.Minute)
		offered(s, 0, 1)
		if problems := s.Status().Problems; len(problems) != 0 {
			t.Errorf("problems %+v, want none any more", problems)
		}
		if r, _ := s.link.lastRegister(); len(r.Hardware.Warnings) != 0 || len(r.Offer.GPUIndices) != 2 {
			t.Errorf("registered with %+v and %v, want both GPUs and no warning", r.Hardware.Warnings, r.Offer.GPUIndices)
		}
		s.mustOK(rent("r-2", 10023))
		if got := s.state("r-2"); got != rental.Running {
			t.Errorf("the next rental is %s, want running", got)
		}
		s.leave()
	})
}
