package docker_test

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"github.com/distributedcompute/host-agent/core/docker"
	"github.com/distributedcompute/host-agent/core/rental"
	"github.com/distributedcompute/host-agent/sandbox/engine"
)

// stored is an engine whose data is on a file system of its own, and an agent's view of it. The workload is there,
// with a volume at /data. Its ports cannot be reached.
type stored struct {
	*docker.Engine
	daemon  *engine.Engine
	changed <-chan struct{} // of the agent's Info
	image   rental.Image
}

func newStored(t *testing.T, kind string) *stored {
	t.Helper()
	beside, err := engine.Start(t.Context(), engine.Options{Storage: kind, Beside: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := beside.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := &stored{daemon: beside}
	s.image = rental.Image{ID: s.load(t)}
	s.agent(t, 0)
	return s
}

// agent is another view of the engine, with a reserve, until the test ends.
func (s *stored) agent(t *testing.T, reserve int64) {
	t.Helper()
	s.Engine = engineWith(t, docker.Options{Host: s.daemon.Host(), OwnerKey: []byte(ownerKey), Images: docker.ImageOptions{Reserve: reserve}})
	s.changed = watch(t, s.Engine)
	until(t, s.Engine, s.changed, func(i rental.EngineInfo) bool { return i.Available })
}

// load puts the workload on the engine, which reaches no registry, and returns its id.
func (s *stored) load(t *testing.T) string {
	t.Helper()
	config, err := guest.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Config.Volumes = map[string]struct{}{"/data": {}}
	built, err := mutate.Config(guest, config.Config)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := tarball.WriteToFile(file, name.MustParseReference("workload:1").(name.Tag), built); err != nil {
		t.Fatal(err)
	}
	s.cli(t, "load", "-q", "-i", file)
	return s.cli(t, "inspect", "-f", "{{.Id}}", "workload:1")
}

func (s *stored) cli(t *testing.T, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("docker", append([]string{"-H", s.daemon.Host()}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}

// rent starts a rental that runs the workload with arguments. It is removed when the test ends.
func (s *stored) rent(t *testing.T, id rental.ID, disk int64, args ...string) rental.Container {
	t.Helper()
	rented := rental.Spec{ID: id, Image: "workload:1", MemoryBytes: 256 << 20, CPUs: 1, PidsLimit: 64, DiskBytes: disk, Command: args}
	made, err := s.Create(t.Context(), rented, s.image)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Remove(context.Background(), id, ""); err != nil {
			t.Errorf("Remove: %v", err)
		}
	})
	c, err := s.Start(t.Context(), made)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	return c
}

// end waits for a rental's end.
func (s *stored) end(t *testing.T, c rental.Container) rental.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	defer cancel()
	exit, err := s.Wait(ctx, c.ID)
	if err != nil {
		t.Fatalf("Wait: %v", err)
	}
	return exit
}

// diskFull is the code of the workload that may write no more.
const diskFull = 28

func TestStorageThatHoldsContainersToASize(t *testing.T) {
	s := newStored(t, "btrfs")
	if !s.HoldsToSize(t.Context()) {
		t.Fatal("btrfs was not found to hold containers to a size")
	}
	if left := s.cli(t, "ps", "-aq"); left != "" {
		t.Errorf("containers of the trial are left: %q", left)
	}
	if images := s.cli(t, "images", "-q"); strings.Contains(images, "\n") {
		t.Errorf("images of the trial are left: %q", images)
	}
	exit := s.end(t, s.rent(t, "big", 48<<20, "-write=/big", "-mb=96"))
	if exit.Code != diskFull || exit.Failure != nil {
		t.Errorf("writing beyond the rented size: %+v, want code %d", exit, diskFull)
	}
}

// free is how much of the engine's disk is.
func (s *stored) free(t *testing.T) int64 {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(s.Info().DataRoot, &fs); err != nil {
		t.Fatal(err)
	}
	return int64(fs.Bavail) * fs.Bsize
}

func TestDisksAreWatchedWhereStorageHoldsNothing(t *testing.T) {
	s := newStored(t, "ext4")
	if s.HoldsToSize(t.Context()) {
		t.Fatal("ext4 was found to hold containers to a size")
	}
	const limit = 32 << 20
	before := s.free(t)
	modest := s.rent(t, "modest", limit, "-write=/root/few,/data/few", "-mb=4")
	began := time.Now()
	greedy := map[string]rental.Container{}
	for name, args := range map[string][]string{
		"layer":            {"-write=/root/much"},
		"volume":           {"-write=/data/much"},
		"removed and open": {"-write=/root/much", "-unlink"},
	} {
		id := rental.ID(strings.ReplaceAll(name, " ", "-"))
		greedy[name] = s.rent(t, id, limit, append(args, "-mb=200", "-rate=16")...)
	}
	for name, c := range greedy {
		exit := s.end(t, c)
		if exit.Failure == nil || exit.Failure.Code != rental.CodeDiskLimit || exit.EngineStopped {
			t.Errorf("%s: ended with %+v, want a failure %s", name, exit, rental.CodeDiskLimit)
			continue
		}
		t.Logf("%s: after %v: %s", name, time.Since(began).Round(10*time.Millisecond), exit.Failure.Message)
	}
	written := before - s.free(t)
	t.Logf("beyond what was rented: %d MiB of three rentals that write 16 MiB/s each", (written-3*limit-8<<20)>>20)
	if written > 300<<20 {
		t.Errorf("%d MiB were written before three rentals of 32 MiB were stopped", written>>20)
	}
	if state := s.cli(t, "inspect", "-f", "{{.State.Status}}", modest.ID); state != "running" {
		t.Errorf("a rental that keeps to its disk is %s", state)
	}

	t.Run("the host keeps its reserve", func(t *testing.T) {
		s.agent(t, 2*(s.free(t)-64<<20))
		until(t, s.Engine, s.changed, func(i rental.EngineInfo) bool { return i.DiskLow })
		c := s.rent(t, "hungry", 900<<20, "-write=/root/much", "-mb=400", "-rate=64")
		exit := s.end(t, c)
		if exit.Failure == nil || exit.Failure.Code != rental.CodeInsufficient {
			t.Fatalf("ended with %+v, want a failure %s", exit, rental.CodeInsufficient)
		}
		t.Log(exit.Failure.Message)
		if state := s.cli(t, "inspect", "-f", "{{.State.Status}}", modest.ID); state != "running" {
			t.Errorf("the rental that had written less is %s", state)
		}
	})
}
