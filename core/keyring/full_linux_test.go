package keyring_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/distributedcompute/host-agent/core/keyring"
	"github.com/distributedcompute/host-agent/core/secret"
)

// A file system that is full: the key of before stays, and what is left of the attempt is nothing.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a file system of a few pages takes root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); errors.Is(err, syscall.EPERM) {
		t.Skip("this root may not mount anything")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	fill := func() {
		t.Helper()
		if err := os.WriteFile(ballast, bytes.Repeat([]byte{1}, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the file system is not full: %v", err)
		}
	}
	wantFull := func(s *keyring.Store, name string) {
		t.Helper()
		want := "storing " + name + " in " + dir + ": no space left on device; make room there, or name another directory with --state-dir"
		if source, err := s.Keep(t.Context(), secret.New("another-key")); err == nil || err.Error() != want {
			t.Errorf("kept in %q, %v; want %s", source, err, want)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*.new")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+t.TempDir()+"/none")
	s := keyring.New(keyring.Options{StateDir: dir})

	fill()
	wantFull(s, "credentials.salt")
	if _, _, err := s.Find(t.Context()); err != keyring.ErrNone { //nolint:errorlint // no trace of it
		t.Errorf("got %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	filed(t, keyring.Options{StateDir: dir})
	s = keyring.New(keyring.Options{StateDir: dir})
	keyring.OnMachine(s, "one machine")
	fill()
	wantFull(s, "credentials.age")
	wantKey(t, s, key)
	if _, err := s.Forget(t.Context()); err != nil { // which takes no room
		t.Error(err)
	}
}

// The same where nobody may mount anything: this process may write no byte to a file.
func TestFileThatTakesNothing(t *testing.T) {
	t.Parallel()
	s := newSession(t) // without a bus
	h := s.host(keyring.Options{})
	wantIn(t, h.keeps(firstKey), "encrypted file ")
	h.do("write nothing any more")
	if a := h.do("keep " + nextKey); !strings.Contains(a.Err, "storing credentials.age in "+s.dir+"/state: file too large; make room there") {
		t.Errorf("kept in %q, %s", a.Source, a.Err)
	}
	h.finds(firstKey)
	entries, err := os.ReadDir(filepath.Join(s.dir, "state"))
	if err != nil || len(entries) != 3 {
		t.Errorf("the state directory holds %v (%v), want what it held before", entries, err)
	}
}
