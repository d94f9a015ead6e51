//go:build unix

package keyring_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distributedcompute/host-agent/core/keyring"
	"github.com/distributedcompute/host-agent/core/secret"
)

// filed is a store whose key is in the encrypted file.
func filed(t *testing.T, o keyring.Options) *keyring.Store {
	t.Helper()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+t.TempDir()+"/none")
	s := keyring.New(o)
	keyring.OnMachine(s, "one machine")
	source, err := s.Keep(t.Context(), secret.New(key))
	if err != nil || !strings.HasPrefix(string(source), "encrypted file ") {
		t.Fatalf("kept in %q, %v", source, err)
	}
	return s
}

func wantKey(t *testing.T, s *keyring.Store, want string) {
	t.Helper()
	if got, _, err := s.Find(t.Context()); err != nil || got.Reveal() != want {
		t.Errorf("got %q, %v; want %q", got.Reveal(), err, want)
	}
}

func TestEncryptedFile(t *testing.T) {
	passphrase := write(t, filepath.Join(t.TempDir(), "passphrase"), 0o600, "a passphrase of twenty-four and more\n")
	for name, o := range map[string]keyring.Options{"bound": {}, "passphrase": {PassphraseFile: passphrase}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o.StateDir = dir
			s := filed(t, o)
			path := filepath.Join(dir, "credentials.age")
			content, err := os.ReadFile(path)
			if err != nil || strings.Contains(string(content), key) {
				t.Errorf("the key can be read in the file (%v)", err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
			}
			wantKey(t, s, key)
			if err := os.Mkdir(path+".new", 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, path+".new/in-the-way", 0o600, "")
			if _, err := s.Keep(t.Context(), secret.New("another-key")); err == nil {
				t.Error("kept where nothing can be written")
			}
			wantKey(t, s, key)
			other := keyring.New(keyring.Options{StateDir: dir})
			keyring.OnMachine(other, "another machine")
			if _, _, err := other.Find(t.Context()); err == nil || errors.Is(err, keyring.ErrNone) || strings.Contains(err.Error(), "\n") {
				t.Errorf("on another machine: %v", err)
			}
			write(t, path, 0o644, string(content))
			if _, _, err := s.Find(t.Context()); err == nil || !strings.Contains(err.Error(), "run: chmod 600") {
				t.Errorf("with a wider mode: %v", err)
			}
			write(t, path, 0o600, "half")
			if _, _, err := s.Find(t.Context()); err == nil || !strings.Contains(err.Error(), "is damaged") {
				t.Errorf("damaged: %v", err)
			}
		})
	}
}
