//go:build unix

package control_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/core/control"
)

func TestSocketIsPrivate(t *testing.T) {
	dir, _ := open(t, &fakeHost{})
	for _, name := range []string{"control.sock", "agent.lock"} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got %v, %v", name, info.Mode(), err)
		}
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	left, err := net.Listen("unix", filepath.Join(dir, "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false) // as after a SIGKILL
	left.Close()
	if _, err := control.NewClient(dir, "").Identity(t.Context()); !errors.Is(err, control.ErrNotRunning) {
		t.Errorf("asking a stale socket: got %v, want ErrNotRunning", err)
	}
	listener, err := control.Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
	if listener, err = control.Listen(t.Context(), dir); err != nil {
		t.Fatal("listening again:", err)
	}
	listener.Close()
}

func TestLongPathIsOneSentence(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 100))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := control.Listen(t.Context(), dir)
	if err == nil || !strings.Contains(err.Error(), "choose a shorter state_dir") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if _, err := control.NewClient(dir, "").Status(t.Context()); err == nil || !strings.Contains(err.Error(), "choose a shorter state_dir") {
		t.Errorf("the client: got %v", err)
	}
}
