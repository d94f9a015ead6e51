package preflight

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestCollect looks at the machine the test runs on, and holds it against what the machine's own files say.
func TestCollect(t *testing.T) {
	began := time.Now()
	running, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	engine := Engine{Components: map[string]string{Docker: "20.10.24+dfsg1"}, Kernel: strings.TrimSpace(string(running))}
	host := Collect(t.Context(), table(t), engine, Drivers{})
	if host.Versions[Kernel] != engine.Kernel || host.Distribution == "" {
		t.Errorf("kernel %q of %q", host.Versions[Kernel], host.Distribution)
	}
	if _, ok := host.Versions[Toolkit]; ok {
		t.Errorf("a toolkit without a GPU: %+v", host.Versions)
	}
	if _, err := os.Stat("/var/lib/dpkg/info/docker.io.list"); err == nil && host.Packages["docker.io"] == "" {
		t.Errorf("docker.io is installed: %v", host.Packages)
	}
	for _, module := range host.Blocked {
		if _, err := os.Stat("/sys/module/" + module); err == nil {
			t.Errorf("%s is loaded", module)
		}
	}
	t.Logf("looked in %v: %+v", time.Since(began), host)
}
