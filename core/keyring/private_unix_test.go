//go:build unix

package keyring_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/distributedcompute/host-agent/core/keyring"
	"github.com/distributedcompute/host-agent/core/secret"
)

func TestFilesThatOthersCanReadAreRefused(t *testing.T) {
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o666} {
		path := write(t, filepath.Join(t.TempDir(), "key"), mode, key)
		for name, o := range map[string]keyring.Options{
			"key file": {File: path},
			".env":     {Given: secret.New(key), GivenFile: path},
		} {
			_, _, err := keyring.New(o).Find(t.Context())
			if err == nil || !strings.Contains(err.Error(), "run: chmod 600 '"+path+"'") {
				t.Errorf("%s with mode %o: got %v", name, mode, err)
			}
		}
	}
}

// systemd gives a service that is not root its credential by an access list: 0440 to look at.
func TestCredentialIsTheSupervisorsToGuard(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "host-api-key"), 0o440, key)
	got, _, err := keyring.New(keyring.Options{CredentialsDir: dir}).Find(t.Context())
	if err != nil || got.Reveal() != key {
		t.Errorf("got %q, %v", got.Reveal(), err)
	}
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	target := write(t, filepath.Join(dir, "target"), 0o600, key)
	link, pipe := filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{link: "is a symbolic link", pipe: "is not a regular file", dir: "is not a regular file"} {
		if _, _, err := keyring.New(keyring.Options{File: path}).Find(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}

func TestFilesOfAnotherUserAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving a file away takes root")
	}
	path := write(t, filepath.Join(t.TempDir(), "key"), 0o600, key)
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, _, err := keyring.New(keyring.Options{File: path}).Find(t.Context()); err == nil || !strings.Contains(err.Error(), "run: chown 0 '"+path+"'") {
		t.Errorf("got %v", err)
	}
}

func TestEveryFileIsPrivate(t *testing.T) {
	dir := t.TempDir()
	s := filed(t, keyring.Options{StateDir: dir})
	for range 2 { // the second time they are there already
		if _, err := s.Keep(t.Context(), secret.New(key)); err != nil {
			t.Fatal(err)
		}
		if _, err := keyring.OwnerKey(dir); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		names = append(names, entry.Name())
		if info, err := entry.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: got mode %v (%v), want 0600", entry.Name(), info.Mode(), err)
		}
	}
	if diff := cmp.Diff([]string{"credentials.age", "credentials.salt", "key-place.json", "owner.key"}, names); err != nil || diff != "" {
		t.Errorf("the state directory: %v\n%s", err, diff)
	}
}

func TestKeepReplacesPlantedLinks(t *testing.T) {
	dir, target := t.TempDir(), filepath.Join(t.TempDir(), "target")
	write(t, target, 0o600, "untouched")
	for _, name := range []string{"credentials.age", "credentials.age.new", "credentials.salt.new", "key-place.json", "key-place.json.new"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := filed(t, keyring.Options{StateDir: dir})
	if content, _ := os.ReadFile(target); string(content) != "untouched" {
		t.Errorf("something went through a link: %q", content)
	}
	wantKey(t, s, key)
}
