package docker

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRootlessEngineIsFound(t *testing.T) {
	if exists(socketPath(systemHost)) {
		t.Fatal("the system's engine can be seen from here")
	}
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	if host := defaultHost(); host != systemHost {
		t.Errorf("without any engine the host is %s", host)
	}
	if err := os.WriteFile(filepath.Join(dir, "docker.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if host := defaultHost(); host != "unix://"+dir+"/docker.sock" {
		t.Errorf("the host is %s", host)
	}
}
