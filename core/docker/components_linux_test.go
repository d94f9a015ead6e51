package docker_test

import (
	"os"
	"strings"
	"testing"
)

// TestComponents holds what the engine says of its parts against what the machine says.
func TestComponents(t *testing.T) {
	e := newEngine(t)
	parts, err := e.Components(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"docker", "containerd", "runc"} {
		if v := parts.Versions[name]; !strings.Contains(v, ".") {
			t.Errorf("%s has version %q", name, v)
		}
	}
	running, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := parts.Kernel, strings.TrimSpace(string(running)); got != want {
		t.Errorf("kernel %q, want %q", got, want)
	}
	if info := e.Look(t.Context()); !info.Available || info.Version != parts.Versions["docker"] {
		t.Errorf("looked at once: %+v", info)
	}
}
