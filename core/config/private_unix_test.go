//go:build unix

package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/core/config"
)

func TestStateDirIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 {
		if err := config.MakeStateDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := config.MakeStateDir(dir); err == nil || !strings.Contains(err.Error(), "run: chmod 700 '"+dir+"'") {
		t.Errorf("an open directory: got %v", err)
	}
}

func TestFilesThatAnyoneCanWriteAreRefused(t *testing.T) {
	for _, name := range []string{"agent.yaml", ".env"} {
		dir, environ := home(t)
		file := write(t, dir, "agent.yaml", "")
		path := write(t, dir, name, "")
		if err := os.Chmod(path, 0o646); err != nil {
			t.Fatal(err)
		}
		_, err := config.Load(config.Sources{File: file, Environ: environ})
		if err == nil || !strings.Contains(err.Error(), "run: chmod o-w '"+path+"'") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
