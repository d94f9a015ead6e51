package desktop_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The unit is what starts the agent where there is no desktop.
func TestSystemdTakesTheUserUnit(t *testing.T) {
	analyze := need(t, "systemd-analyze", "systemd")
	own(t)
	text := read(t, "../../installer/linux/distributed-agent.service")
	for _, line := range []string{
		"ExecStart=/usr/bin/distributed-agent start --headless", "Restart=on-failure", "RestartPreventExitStatus=2 3 5", "WantedBy=default.target",
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the unit lacks %s", line)
		}
	}
	// systemd wants the program to be there.
	unit := filepath.Join(t.TempDir(), "distributed-agent.service")
	put(t, unit, strings.ReplaceAll(text, "/usr/bin/distributed-agent", program(t, "distributed-agent")), 0o644)
	verify := exec.Command(analyze, "verify", "--user", "--man=no", unit)
	verify.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
	if said, err := verify.CombinedOutput(); err != nil || strings.Contains(string(said), unit) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, said)
	}
}
