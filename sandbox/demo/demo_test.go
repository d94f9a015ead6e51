package demo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
	"github.com/distributedcompute/host-agent/sandbox/engine"
	"github.com/distributedcompute/host-agent/sandbox/workload/report"
)

func TestMain(m *testing.M) { os.Exit(engine.Isolated(func() int { return runOrInside(m) })) }

// runOrInside is the demo's hidden command where a test runs this program again as that.
func runOrInside(m *testing.M) int {
	if len(os.Args) == 3 && os.Args[1] == InsideCommand {
		return Inside(context.Background(), os.Args[2])
	}
	return m.Run()
}

// perform runs the demo with a program as the agent, in a temporary directory that must be empty
// afterwards. What was said as the reason of a failure comes with it.
func perform(t *testing.T, program string) (said string, err error) {
	t.Helper()
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	var out, reason bytes.Buffer
	err = Run(t.Context(), Options{Program: "build/sandbox", Agent: program, Once: true, Out: &out, Err: &reason})
	left, globErr := filepath.Glob(filepath.Join(temp, "*"))
	if globErr != nil || len(left) > 0 {
		t.Errorf("the demo left %v, %v", left, globErr)
	}
	return out.String() + reason.String(), err
}

func TestRental(t *testing.T) {
	program := filepath.Join(t.TempDir(), "distributed-agent")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/distributedcompute/host-agent/app")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the agent: %v\n%s", err, out)
	}
	t.Run("private", func(t *testing.T) {
		tellsAll(t, program, "(private)")
	})
	t.Run("system", func(t *testing.T) {
		system, err := engine.Start(t.Context(), engine.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := system.Stop(); err != nil {
				t.Error(err)
			}
		})
		t.Setenv("DOCKER_HOST", system.Host())
		before := holdings(t, system.Host())
		tellsAll(t, program, "(the system's)")
		if diff := cmp.Diff(before, holdings(t, system.Host())); diff != "" {
			t.Errorf("the demo changed what the engine holds: %s", diff)
		}
	})
}

// tellsAll runs the demo and looks for every step in what it says.
func tellsAll(t *testing.T, program, whose string) {
	t.Helper()
	said, err := perform(t, program)
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for _, want := range []string{
		whose, "The agent has registered", "is ordered", "It runs", "accepted 0.00 s → pulling", "answers",
		"as ordered", "heartbeats came", "GET /json", "has been stopped", "earned", "container and network are gone",
		"Next: open a marketplace of your own with `build/sandbox up`",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the demo does not say %q:\n%s", want, said)
		}
	}
}

// holdings names the containers, networks, volumes and images of an engine.
func holdings(t *testing.T, host string) []string {
	t.Helper()
	d, err := newDocker(host)
	if err != nil {
		t.Fatal(err)
	}
	type thing struct{ ID, Name string }
	var containers, networks, images []thing
	var volumes struct{ Volumes []thing }
	for path, result := range map[string]any{
		"/containers/json?all=1": &containers, "/networks": &networks, "/images/json?all=1": &images, "/volumes": &volumes,
	} {
		if err := d.call(t.Context(), http.MethodGet, path, result); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for _, thing := range slices.Concat(containers, networks, images, volumes.Volumes) {
		names = append(names, thing.ID+" "+thing.Name)
	}
	slices.Sort(names)
	return names
}

func TestAgentThatIsNotThere(t *testing.T) {
	_, err := perform(t, filepath.Join(t.TempDir(), "agent"))
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("error = %v, want the next step", err)
	}
}

func TestAgentThatEndsByItself(t *testing.T) {
	program := filepath.Join(t.TempDir(), "agent")
	script := "#!/bin/sh\necho \"agent.yaml:1: is not to my taste\"\nexit 2\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	said, err := perform(t, program)
	if !errors.Is(err, ErrTold) {
		t.Errorf("error = %v", err)
	}
	for _, want := range []string{"ended by itself (exit status 2)", "agent.yaml:1: is not to my taste"} {
		if !strings.Contains(said, want) {
			t.Errorf("the demo does not say %q:\n%s", want, said)
		}
	}
}

// TestWindow looks from one network into another, through the socket that joins them.
func TestWindow(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	defer page.Close()
	w := window{Socket: filepath.Join(t.TempDir(), "window")}
	inner, err := w.open(page.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	outer := forward(listener, "unix", w.Socket)
	sent := strings.Repeat("look in ", 100_000)
	response, err := http.Post("http://"+listener.Addr().String(), "text/plain", strings.NewReader(sent))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got, err := io.ReadAll(response.Body); err != nil || string(got) != sent {
		t.Errorf("%d bytes came back, %v; want the %d that were sent", len(got), err, len(sent))
	}
	inner.close() // while the browser still holds its connection
	outer.close()
	if _, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		t.Error("the window is still open")
	}
}

func TestAsRoot(t *testing.T) {
	for _, tt := range []struct {
		name, sudo string // script, "": there is none
		once       bool
		args       string
		err        string
	}{
		{"a person can be asked", "exit 1", false, "sudo demo", ""},
		{"nobody to ask", "exit 0", true, "sudo -n demo", ""},
		{"nobody to ask for a password", "exit 1", true, "", "without a password"},
		{"no sudo", "", true, "", "start Docker"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bin := t.TempDir()
			if tt.sudo != "" {
				if err := os.WriteFile(filepath.Join(bin, "sudo"), []byte("#!/bin/sh\n"+tt.sudo+"\n"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", bin)
			args, err := asRoot([]string{"demo"}, tt.once)
			if got := strings.ReplaceAll(strings.Join(args, " "), bin+"/", ""); got != tt.args {
				t.Errorf("command line %q, want %q", got, tt.args)
			}
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error = %v, want %q", err, tt.err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	order := protocol.StartInstance{RAMLimit: 256 << 20, CPUCores: 0.5}
	good := report.Rental{MemoryBytes: 256 << 20, CPUs: 0.5, PidsLimit: 64, GPUsVisible: "void", NoNewPrivs: true, Capabilities: []string{"CHOWN"}}
	if err := check(good, order); err != nil {
		t.Errorf("a good rental: %v", err)
	}
	for _, tt := range []struct {
		name  string
		spoil func(*report.Rental)
		want  string
	}{
		{"memory", func(g *report.Rental) { g.MemoryBytes = 0 }, "memory limit is 0 bytes"},
		{"cpu", func(g *report.Rental) { g.CPUs = 2 }, "CPU limit is 2"},
		{"pids", func(g *report.Rental) { g.PidsLimit = 0 }, "processes are not limited"},
		{"gpus", func(g *report.Rental) { g.GPUsVisible = "all" }, "all GPUs"},
		{"privileges", func(g *report.Rental) { g.NoNewPrivs = false }, "gain privileges"},
		{"capability", func(g *report.Rental) { g.Capabilities = append(g.Capabilities, "NET_ADMIN") }, "capability NET_ADMIN"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := good
			tt.spoil(&g)
			if err := check(g, order); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestDockerHostElsewhereIsRefused(t *testing.T) {
	if _, err := newDocker("tcp://10.0.0.1:2375"); err == nil || !strings.Contains(err.Error(), "unix://") {
		t.Errorf("error = %v", err)
	}
}

func TestNarrator(t *testing.T) {
	var out bytes.Buffer
	n := newNarrator(&out)
	n.begun = time.Now().Add(-90 * time.Second)
	n.now("waiting") // not on a terminal
	n.done("Engine %d answers", 1)
	n.detail("cpu", "%d cores", 2)
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "  ✓ Engine 1 answers") || !strings.HasSuffix(lines[0], "90.00 s") {
		t.Errorf("said %q", lines)
	}
	if lines[1] != "      cpu        2 cores" {
		t.Errorf("detail %q", lines[1])
	}

	n.terminal = true
	out.Reset()
	n.now("half")
	n.say("whole")
	if out.String() != "  … half\r\x1b[Kwhole\n" {
		t.Errorf("a line of progress was not replaced: %q", out.String())
	}
}

func TestWhyNone(t *testing.T) {
	deaf := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: deaf})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	_ = listener.Close()
	for _, tt := range []struct{ name, host, want string }{
		{"no socket", "unix:///nowhere/docker.sock", "No Docker Engine runs here"},
		{"a socket left over", "unix://" + deaf, "No Docker Engine runs here"},
		{"elsewhere", "tcp://10.0.0.1:2375", "DOCKER_HOST=tcp://10.0.0.1:2375"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("DOCKER_HOST", tt.host)
			_, err := systemEngine(t.Context())
			if err == nil || !strings.Contains(whyNone(err), tt.want) {
				t.Errorf("%v is told as %q, want %q", err, whyNone(err), tt.want)
			}
		})
	}
	if got := whyNone(syscall.EACCES); got != "This user may not use the Docker Engine here" {
		t.Errorf("a socket of others is told as %q", got)
	}
}

func TestGib(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0", 256 << 20: "0.25", 16 << 30: "16", 15987 << 20: "15.61"} {
		if got := gib(bytes); got != want {
			t.Errorf("gib(%d) = %s, want %s", bytes, got, want)
		}
	}
	if got := gibOf(nil); got != "unknown" {
		t.Errorf("an unknown figure is told as %q", got)
	}
}

func TestBar(t *testing.T) {
	for _, tt := range []struct {
		current, total int64
		filled         int
	}{{0, 0, 0}, {0, 10, 0}, {5, 10, 12}, {10, 10, 24}, {20, 10, 24}} {
		if got := strings.Count(bar(tt.current, tt.total), "█"); got != tt.filled {
			t.Errorf("bar(%d, %d) has %d filled, want %d", tt.current, tt.total, got, tt.filled)
		}
	}
}

func TestBecause(t *testing.T) {
	reason := errors.New("it took too long")
	ctx, cancel := context.WithCancelCause(t.Context())
	failed := errors.New("dialling")
	if got := because(ctx, failed); got.Error() != "dialling" {
		t.Errorf("while nothing has ended: %v", got)
	}
	cancel(reason)
	if got := because(ctx, failed); !errors.Is(got, reason) || !errors.Is(got, failed) {
		t.Errorf("after the end: %v", got)
	}
	if got := because(ctx, nil); got != nil {
		t.Errorf("without an error: %v", got)
	}
}
