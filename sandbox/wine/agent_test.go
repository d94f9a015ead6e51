//go:build wine

package wine

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/assets"
	"github.com/distributedcompute/host-agent/sandbox/backend"
	"github.com/distributedcompute/host-agent/sandbox/ca"
)

const (
	// What Windows and the user keep of programs that start with the session.
	runKey      = `HKCU\Software\Microsoft\Windows\CurrentVersion\Run`
	approvedKey = `HKCU\Software\Microsoft\Windows\CurrentVersion\Explorer\StartupApproved\Run`
	runValue    = "io.distributedcompute.Agent"
)

// market opens a backend and returns the path of an agent.yaml for it. The state directory is a new one:
// Wine 8 cannot remove a file as Go's os.Root does, which an agent that starts again may have to.
func (w *world) market() (b *backend.Backend, config, stateDir string) {
	w.t.Helper()
	authority, err := ca.New()
	w.must(err)
	b, err = backend.Start(w.t.Context(), backend.Options{CA: authority})
	w.must(err)
	w.t.Cleanup(func() { b.Close() })
	dir := w.t.TempDir()
	w.must(os.WriteFile(filepath.Join(dir, "ca.pem"), authority.PEM(), 0o600))
	config = filepath.Join(dir, "agent.yaml")
	stateDir = `C:\agent-` + strconv.FormatInt(time.Now().UnixNano(), 36)
	w.must(os.WriteFile(config, fmt.Appendf(nil, "backend:\n  url: %s\n  ca_file: ca.pem\nstate_dir: '%s'\n", b.URL(), stateDir), 0o600))
	// As a variable: Wine shows Windows no access list that would keep a file private.
	w.environ = append(w.environ, "HOST_API_KEY="+b.IssueKey().Reveal())
	return b, windowsPath(config), stateDir
}

// wedge has doorstop be the first client of the agent's pipe, whose name core/control makes like this.
func (w *world) wedge(stateDir string) *process {
	w.t.Helper()
	sum := sha256.Sum256([]byte(strings.ToLower(stateDir)))
	return w.start(shared.program("doorstop.exe"), fmt.Sprintf(`\\.\pipe\distributed-agent-%x`, sum[:8]))
}

// The whole of it: the icon in the taskbar, the command line through the pipe, start with the session.
func TestTray(t *testing.T) {
	w := &world{t: t}
	w.open()
	b, config, stateDir := w.market()
	agent, window := shared.program("distributed-agent.exe"), shared.program("distributed-agentw.exe")

	if w.shows(assets.Problem) {
		t.Fatal("the taskbar shows the icon before there is one")
	}
	wedge := w.wedge(stateDir)
	tray := w.start(window, "tray", "--config", config)
	w.eventually("the agent's pipe is there", func() bool { return strings.Contains(wedge.said(), "in") })
	_, err := b.WaitNode(t.Context())
	w.must(err)
	// There is no Docker in Wine.
	w.eventually("the taskbar shows that there is a problem", func() bool { return w.shows(assets.Problem) })

	if said := w.succeeds(agent, "status", "--config", config); !strings.Contains(said, "Docker is not installed") {
		t.Errorf("status says:\n%s", said)
	}
	w.succeeds(agent, "stop", "--config", config)
	if code := tray.wait(); code != 0 {
		t.Errorf("the tray ended with exit code %d", code)
	}
	w.eventually("the icon has gone", func() bool { return !w.shows(assets.Problem) })
	if said, code := w.run(agent, "status", "--config", config); code != 4 {
		t.Errorf("status of an agent that has gone: exit code %d\n%s", code, said)
	}
}

// What a person double-clicks, and what starts with the session, Explorer starts.
func TestStartedByExplorer(t *testing.T) {
	w := &world{t: t}
	agent := shared.program("distributed-agent.exe")
	w.open(windowsPath(agent), "autostart", "on")
	w.eventually("the program has done what it was started for", func() bool { return w.query(runKey, runValue) != "" })
	w.succeeds(agent, "autostart", "off")
}

func TestAutostart(t *testing.T) {
	w := &world{t: t}
	agent := shared.program("distributed-agent.exe")
	if line := w.query(runKey, runValue); line != "" {
		t.Fatalf("before anything: %s", line)
	}
	w.succeeds(agent, "autostart", "on")
	line := w.query(runKey, runValue)
	if want := `"` + windowsPath(shared.program("distributed-agentw.exe")) + `" tray`; !strings.HasPrefix(line, want) {
		t.Errorf("Windows runs %s, want %s…", line, want)
	}
	if said := w.succeeds(agent, "autostart", "status"); !says(said, "on") {
		t.Errorf("status says:\n%s", said)
	}

	// As Task Manager switches it off: that is the user's word.
	w.succeeds("reg", "add", approvedKey, "/v", runValue, "/t", "REG_BINARY", "/d", "030000000102030405060708", "/f")
	if said, _ := w.run(agent, "autostart", "status"); !strings.Contains(said, "Task Manager") {
		t.Errorf("status says:\n%s", said)
	}
	if said, code := w.run(agent, "autostart", "on"); code == 0 || !strings.Contains(said, "Task Manager") {
		t.Errorf("on, exit code %d:\n%s", code, said)
	}
	if got := w.query(approvedKey, runValue); !strings.HasPrefix(got, "03") {
		t.Errorf("the user's switch is now %s", got)
	}
	w.succeeds("reg", "delete", approvedKey, "/v", runValue, "/f")

	w.succeeds(agent, "autostart", "off")
	if line := w.query(runKey, runValue); line != "" {
		t.Errorf("Windows still runs %s", line)
	}
	if said := w.succeeds(agent, "autostart", "status"); !says(said, "off") {
		t.Errorf("status says:\n%s", said)
	}
}

// says reports whether a text has a word.
func says(text, word string) bool {
	return strings.Contains(" "+strings.Join(strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return r < 'a' || r > 'z' }), " ")+" ", " "+word+" ")
}

// Tests of packages whose Windows half needs nothing that Wine lacks.
func TestPackages(t *testing.T) {
	w := &world{t: t}
	for _, pkg := range []string{"core/desktop"} {
		t.Run(pkg, func(t *testing.T) {
			program := shared.program(strings.ReplaceAll(pkg, "/", "-") + ".test.exe")
			w.must(compile("test", "-c", "-o", program, "../../"+pkg))
			if said := w.succeeds(program, "-test.v"); !strings.HasSuffix(said, "PASS\n") {
				t.Errorf("it said:\n%s", said)
			}
		})
	}
}
