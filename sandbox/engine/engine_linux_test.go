package engine

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMain(m *testing.M) { os.Exit(Isolated(m.Run)) }

func TestIsolatedHasANetworkOfItsOwn(t *testing.T) {
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if i.Name != "lo" && i.Name != "docker0" && i.Flags&net.FlagUp != 0 {
			t.Errorf("interface %s is up inside: only loopback and the engine's own may be", i.Name)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatalf("loopback inside: %v", err)
	}
	conn.Close()
}

func TestGPURequestReachesTheHook(t *testing.T) {
	e := start(t, Options{FakeNVIDIA: true})
	importImage(t, e)
	out := docker(t, e, "run", "--rm", "--gpus", `"device=GPU-one,GPU-two"`, "idle", "/usr/bin/nvidia-smi", "-L")
	want := "GPU 0: Sandbox GPU (UUID: GPU-one)\nGPU 1: Sandbox GPU (UUID: GPU-two)\n"
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("nvidia-smi inside the container (-want +got):\n%s", diff)
	}
	calls, err := e.HookCalls()
	if err != nil {
		t.Fatal(err)
	}
	if len(calls) != 1 {
		t.Fatalf("the hook was called %d times, want 1", len(calls))
	}
	if diff := cmp.Diff([]string{"GPU-one", "GPU-two"}, calls[0].Devices); diff != "" {
		t.Errorf("devices the hook was asked for (-want +got):\n%s", diff)
	}
	if !slices.Contains(calls[0].Env, "NVIDIA_VISIBLE_DEVICES=GPU-one,GPU-two") || len(calls[0].ContainerID) != 64 {
		t.Errorf("the hook saw container %q with environment %q", calls[0].ContainerID, calls[0].Env)
	}
}

func TestWithoutTheHookGPUsAreRefused(t *testing.T) {
	e := start(t, Options{})
	importImage(t, e)
	out, err := dockerCommand(e, "run", "--rm", "--gpus", "device=GPU-one", "idle").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "could not select device driver") {
		t.Errorf("docker run --gpus without the hook: %v, %s", err, out)
	}
}

func TestContainersAndTheEnginesEnd(t *testing.T) {
	tests := map[string]struct {
		liveRestore bool
		end         func(*Engine) error
		survives    bool // the container, the engine's absence and return
	}{
		"asked":                     {end: (*Engine).Down},
		"asked, live-restore":       {liveRestore: true, end: (*Engine).Down, survives: true},
		"on the spot":               {end: (*Engine).Kill},
		"on the spot, live-restore": {liveRestore: true, end: (*Engine).Kill, survives: true},
	}
	e := start(t, Options{})
	importImage(t, e)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := e.SetLiveRestore(t.Context(), test.liveRestore); err != nil {
				t.Fatal(err)
			}
			id := strings.TrimSpace(docker(t, e, "run", "-d", "idle"))
			before := e.Pid()
			if err := test.end(e); err != nil {
				t.Fatal(err)
			}
			if e.Pid() != 0 {
				t.Errorf("dockerd still runs as %d", e.Pid())
			}
			if err := e.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if e.Pid() == before {
				t.Errorf("dockerd is still process %d", before)
			}
			running := strings.TrimSpace(docker(t, e, "inspect", "-f", "{{.State.Running}}", id))
			if running != strconv.FormatBool(test.survives) {
				t.Errorf("container running after the engine's return: %s, want %t", running, test.survives)
			}
			docker(t, e, "rm", "-f", id)
		})
	}
}

func TestStopLeavesNothing(t *testing.T) {
	for name, before := range map[string]func(*Engine) error{
		"while it runs":       func(*Engine) error { return nil },
		"after it was killed": (*Engine).Kill,
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, Options{LiveRestore: true})
			importImage(t, e)
			docker(t, e, "run", "-d", "idle")
			if err := before(e); err != nil {
				t.Fatal(err)
			}
			if err := e.Stop(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(e.dir); !os.IsNotExist(err) {
				t.Errorf("directory %s: %v", e.dir, err)
			}
			mounts, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(mounts), e.dir) {
				t.Errorf("mounts are left in %s", e.dir)
			}
			if groups, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", e.cgroup)); len(groups) > 0 {
				t.Errorf("control groups are left: %s", groups)
			}
			if left := programs(t, "dockerd", "containerd", "containerd-shim-runc-v2", "docker-proxy", "idle"); len(left) > 0 {
				t.Errorf("processes are left: %s", left)
			}
		})
	}
}

func TestMissingProgramNamesTheRemedy(t *testing.T) {
	_, err := lookUp("no-such-engine")
	if err == nil || err.Error() != "no-such-engine not found: run `make setup`" {
		t.Errorf("lookUp: %v", err)
	}
}

func TestDirIsBoundedAndMustBeEmpty(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"too long": "/tmp/" + strings.Repeat("x", maxDir), "not empty": full} {
		t.Run(name, func(t *testing.T) {
			if e, err := Start(t.Context(), Options{Dir: dir}); err == nil {
				t.Errorf("Start accepted %s", dir)
				_ = e.Stop()
			}
		})
	}
	if _, err := os.Stat(filepath.Join(full, "precious")); err != nil {
		t.Errorf("a file that was there before: %v", err)
	}
}

func start(t *testing.T, options Options) *Engine {
	t.Helper()
	e, err := Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Stop(); err != nil {
			t.Errorf("stopping the engine: %v", err)
		}
	})
	return e
}

func dockerCommand(e *Engine, args ...string) *exec.Cmd {
	return exec.Command("docker", append([]string{"-H", e.Host()}, args...)...)
}

func docker(t *testing.T, e *Engine, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := dockerCommand(e, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out)
}

// importImage makes the image "idle" from the program in testdata.
func importImage(t *testing.T, e *Engine) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "idle")
	build := exec.Command("go", "build", "-o", program, "./testdata/idle")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the image's program: %v\n%s", err, out)
	}
	raw, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "idle", Mode: 0o755, Size: int64(len(raw))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := dockerCommand(e, "import", "-c", `CMD ["/idle"]`, "-", "idle")
	cmd.Stdin = &layer
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("importing the image: %v\n%s", err, out)
	}
}

// programs lists the running ones among names. The processes in sight are this test's own.
func programs(t *testing.T, names ...string) []string {
	t.Helper()
	paths, err := fs.Glob(os.DirFS("/proc"), "[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		comm, err := os.ReadFile(filepath.Join("/proc", path))
		if err != nil {
			continue // it has just ended
		}
		for _, name := range names {
			if strings.TrimSpace(string(comm)) == name[:min(len(name), 15)] {
				found = append(found, path+" "+name)
			}
		}
	}
	return found
}
