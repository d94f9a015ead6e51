//go:build unix

package keyring_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/distributedcompute/host-agent/core/keyring"
	"github.com/distributedcompute/host-agent/core/secret"
)

// filed is a store whose key is in the encrypted file.
func filed(t testing.TB, o keyring.Options) *keyring.Store {
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

// wantRefusal fails the test unless no key is found, for the reason given in one line.
func wantRefusal(t testing.TB, s *keyring.Store, reason string) {
	t.Helper()
	got, _, err := s.Find(t.Context())
	if err == nil || !got.Empty() || errors.Is(err, keyring.ErrNone) || !strings.Contains(err.Error(), reason) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %q, %v; want an error with %q", got.Reveal(), err, reason)
	}
}

func wantKey(t testing.TB, s *keyring.Store, want string) {
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

func TestFilesThatAreNotOursAreRefused(t *testing.T) {
	for _, name := range []string{"credentials.age", "credentials.salt", "key-place.json"} {
		for fault, tt := range map[string]struct {
			make func(path string) error
			want string
		}{
			"wider mode": {func(path string) error { return os.Chmod(path, 0o640) }, "can be read by other users (mode 0640); run: chmod 600"},
			"link": {func(path string) error {
				return errors.Join(os.Rename(path, path+".moved"), os.Symlink(path+".moved", path))
			}, "is a symbolic link"},
			"folder":        {func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, "is not a regular file"},
			"foreign owner": {func(path string) error { return os.Chown(path, 65534, 65534) }, "belongs to another user (uid 65534); run: chown"},
		} {
			t.Run(name+"/"+fault, func(t *testing.T) {
				if fault == "foreign owner" && os.Geteuid() != 0 {
					t.Skip("giving a file away takes root")
				}
				dir := t.TempDir()
				s := filed(t, keyring.Options{StateDir: dir})
				if err := tt.make(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
				wantRefusal(t, s, tt.want)
				// Signing out clears them all the same.
				if left, err := s.Forget(t.Context()); err != nil || left != "" {
					t.Errorf("forgetting: %q, %v", left, err)
				}
				if _, _, err := s.Find(t.Context()); err != keyring.ErrNone { //nolint:errorlint // whoever signed out is told nothing more
					t.Errorf("after forgetting: %v", err)
				}
			})
		}
	}
}

func TestSaltThatIsLost(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"missing": os.Remove,
		"short":   func(path string) error { return os.WriteFile(path, []byte("abcdef\n"), 0o600) },
		"no hex":  func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("x", 64)), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := filed(t, keyring.Options{StateDir: dir})
			if err := spoil(filepath.Join(dir, "credentials.salt")); err != nil {
				t.Fatal(err)
			}
			wantRefusal(t, s, "cannot be opened without the credentials.salt it was made with; put that back, or sign in again")
			if _, err := s.Keep(t.Context(), secret.New("another-key")); err != nil { // which is to sign in again
				t.Fatal(err)
			}
			wantKey(t, s, "another-key")
		})
	}
	t.Run("another", func(t *testing.T) {
		dir := t.TempDir()
		s := filed(t, keyring.Options{StateDir: dir})
		write(t, filepath.Join(dir, "credentials.salt"), 0o600, strings.Repeat("ab", 32))
		wantRefusal(t, s, "was encrypted on another machine or by another user and cannot be opened here; sign in again")
	})
}

func TestNoteOfThePlaceThatIsLost(t *testing.T) {
	for name, tt := range map[string]struct{ content, want string }{
		"no JSON":        {"{", "which says where the host key is, is damaged; sign in again"},
		"unknown place":  {`{"kind":"chip"}`, `kept in a place this version does not know ("chip" in `},
		"empty":          {"", "is damaged; sign in again"},
		"another's type": {`{"kind":1}`, "is damaged; sign in again"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := filed(t, keyring.Options{StateDir: dir})
			write(t, filepath.Join(dir, "key-place.json"), 0o600, tt.content)
			wantRefusal(t, s, tt.want)
			if _, err := s.Keep(t.Context(), secret.New("another-key")); err != nil {
				t.Fatal(err)
			}
			wantKey(t, s, "another-key")
		})
	}
}

func TestPassphrase(t *testing.T) {
	const long, other = "a passphrase of twenty-four and more", "another passphrase, as long as the first"
	given := func(t *testing.T, text string) string {
		t.Helper()
		return write(t, filepath.Join(t.TempDir(), "key-passphrase"), 0o600, text)
	}
	dir, path := t.TempDir(), given(t, long)
	s := filed(t, keyring.Options{StateDir: dir, PassphraseFile: path})
	t.Run("pays once", func(t *testing.T) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		wantKey(t, s, key)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
			t.Errorf("finding the key again took %d bytes, as opening the file does", took)
		}
	})
	t.Run("wrong", func(t *testing.T) {
		write(t, path, 0o600, other) // also for a store that has opened the file before
		wantRefusal(t, s, "the passphrase of file "+path+" does not open "+dir+"/credentials.age; give the one it was made with, or sign in again")
		write(t, path, 0o600, "  "+long+"\r\n")
		wantKey(t, s, key)
	})
	t.Run("of a file whose price somebody raised", func(t *testing.T) {
		sealed := filepath.Join(dir, "credentials.age")
		content, err := os.ReadFile(sealed)
		if err != nil {
			t.Fatal(err)
		}
		dear := strings.Replace(string(content), " 15\n", " 22\n", 1)
		if dear == string(content) {
			t.Fatalf("no price in %q", content[:80])
		}
		write(t, sealed, 0o600, dear)
		begun := time.Now()
		wantRefusal(t, s, "is damaged; restore it, or sign in again")
		if took := time.Since(begun); took > time.Second { // rather than minutes, and gigabytes
			t.Errorf("it took %v to find out", took)
		}
		write(t, sealed, 0o600, string(content))
	})
	t.Run("unreadable", func(t *testing.T) {
		write(t, path, 0o644, long)
		wantRefusal(t, s, "run: chmod 600")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, s, "reading the passphrase of the encrypted file: ")
	})
	t.Run("none any more", func(t *testing.T) {
		_, _, err := keyring.New(keyring.Options{StateDir: dir}).Find(t.Context())
		if !errors.Is(err, keyring.ErrUnavailable) || !strings.Contains(err.Error(), "name its file in keyring.passphrase_file") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("credential goes before the file", func(t *testing.T) {
		path := given(t, long)
		if err := os.Chmod(path, 0o440); err != nil { // as systemd gives it
			t.Fatal(err)
		}
		s := keyring.New(keyring.Options{StateDir: dir, CredentialsDir: filepath.Dir(path), PassphraseFile: given(t, other)})
		wantKey(t, s, key)
		if _, source, _ := s.Find(t.Context()); !strings.Contains(string(source), "opened with the passphrase of credential "+path) {
			t.Errorf("found in %q", source)
		}
	})
	t.Run("no such credential", func(t *testing.T) {
		wantKey(t, keyring.New(keyring.Options{StateDir: dir, CredentialsDir: t.TempDir(), PassphraseFile: given(t, long)}), key)
	})
	t.Run("short", func(t *testing.T) {
		for _, text := range []string{"", "seven77", "säöüäöü"} { // the last takes more bytes than characters
			path := given(t, text)
			want := fmt.Sprintf("the passphrase of file %s has %d characters; give one of at least 8, better 24 random ones", path, utf8.RuneCountInString(text))
			if _, err := keyring.New(keyring.Options{StateDir: t.TempDir(), PassphraseFile: path}).Keep(t.Context(), secret.New(key)); err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		}
	})
}

// Guessing a passphrase that a person could remember has to cost more.
func TestShortPassphraseCostsMore(t *testing.T) {
	for text, want := range map[string]int{
		"twenty-three characters": 18, "twenty-four characters !": 15,
		"пароль в 22 знака длин": 18, // 34 bytes
	} {
		if got := keyring.Cost(text); got != want {
			t.Errorf("%q costs %d, want %d", text, got, want)
		}
	}
}

// It is opened again at that price, which takes the race detector 10 s.
func TestShortPassphrase(t *testing.T) {
	dir := t.TempDir()
	o := keyring.Options{StateDir: dir, PassphraseFile: write(t, filepath.Join(t.TempDir(), "passphrase"), 0o600, "correct horse")}
	wantKey(t, filed(t, o), key)
	content, err := os.ReadFile(filepath.Join(dir, "credentials.age"))
	_, header, _ := strings.Cut(string(content), "\n-> scrypt ")
	line, _, _ := strings.Cut(header, "\n")
	if err != nil || !strings.HasSuffix(line, " 18") {
		t.Errorf("the header says %q (%v), want a cost of 18", line, err)
	}
}

func TestForgetNamesThePlaceThatIsNotItsOwn(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "named"), 0o644, "a key that the mode makes unusable")
	envFile := write(t, filepath.Join(t.TempDir(), ".env"), 0o600, "")
	credentials := t.TempDir()
	credential := write(t, filepath.Join(credentials, "host-api-key"), 0o440, "from-the-supervisor")
	absent := filepath.Join(t.TempDir(), "none")
	given := secret.New("from-the-environment")
	for _, tt := range []struct {
		name string
		o    keyring.Options
		want string
	}{
		{"none", keyring.Options{}, ""},
		{"named file", keyring.Options{File: file, CredentialsDir: credentials, Given: given}, "file " + file},
		{"named file that is absent", keyring.Options{File: absent, CredentialsDir: credentials}, "credential " + credential},
		{"credential", keyring.Options{CredentialsDir: credentials, Given: given}, "credential " + credential},
		{"no credential", keyring.Options{CredentialsDir: t.TempDir(), Given: given}, "environment (HOST_API_KEY)"},
		{"environment", keyring.Options{Given: given}, "environment (HOST_API_KEY)"},
		{".env file", keyring.Options{Given: given, GivenFile: envFile}, "HOST_API_KEY in " + envFile},
		{"nothing there", keyring.Options{File: absent, CredentialsDir: t.TempDir(), GivenFile: envFile}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.StateDir = t.TempDir()
			s := filed(t, tt.o)
			left, err := s.Forget(t.Context())
			if err != nil || string(left) != tt.want {
				t.Errorf("left %q, %v; want %q", left, err, tt.want)
			}
			if entries, _ := os.ReadDir(tt.o.StateDir); len(entries) != 0 {
				t.Errorf("the state directory still holds %v", entries)
			}
			for _, path := range []string{file, credential, envFile} {
				if _, err := os.Stat(path); err != nil {
					t.Error(err)
				}
			}
			if left, err := s.Forget(t.Context()); err != nil || string(left) != tt.want { // once more, with nothing to do
				t.Errorf("left %q, %v; want %q", left, err, tt.want)
			}
		})
	}
}

// A crash in the middle of Keep may leave the next content of the file: that is a key too.
func TestForgetClearsWhatACrashHasLeft(t *testing.T) {
	dir := t.TempDir()
	s := filed(t, keyring.Options{StateDir: dir})
	write(t, filepath.Join(dir, "credentials.age.new"), 0o600, "a key")
	if _, err := s.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("the state directory still holds %v", entries)
	}
}

func TestFailedKeepLeavesTheFileOfBefore(t *testing.T) {
	dir := t.TempDir()
	filed(t, keyring.Options{StateDir: dir, Origin: "https://one.example"})
	if err := os.MkdirAll(filepath.Join(dir, "key-place.json.new", "in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	other := keyring.New(keyring.Options{StateDir: dir, Origin: "https://two.example"})
	keyring.OnMachine(other, "one machine")
	if source, err := other.Keep(t.Context(), secret.New("another-key")); err == nil {
		t.Errorf("kept in %q without a note of it", source)
	}
	one := keyring.New(keyring.Options{StateDir: dir, Origin: "https://one.example"})
	keyring.OnMachine(one, "one machine")
	wantKey(t, one, key)
	// Another key in the same place takes no other note.
	if _, err := one.Keep(t.Context(), secret.New("another-key")); err != nil {
		t.Error(err)
	}
}

func TestFailedKeepLeavesNoFileWhereThereWasNone(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "key-place.json.new", "in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if source, err := keyring.New(keyring.Options{StateDir: dir}).Keep(t.Context(), secret.New(key)); err == nil {
		t.Errorf("kept in %q without a note of it", source)
	}
	if _, err := os.Lstat(filepath.Join(dir, "credentials.age")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
}

// Setup may be given a key before it is told for which marketplace.
func TestKeyForOneMarketplace(t *testing.T) {
	for _, tt := range []struct {
		kept, looked string
		found        bool
	}{
		{"https://one.example", "https://one.example", true},
		{"", "https://one.example", true},
		{"https://one.example", "", true},
		{"https://one.example", "https://two.example", false},
	} {
		t.Run(tt.kept+" "+tt.looked, func(t *testing.T) {
			dir := t.TempDir()
			filed(t, keyring.Options{StateDir: dir, Origin: tt.kept})
			s := keyring.New(keyring.Options{StateDir: dir, Origin: tt.looked})
			keyring.OnMachine(s, "one machine")
			if got, _, err := s.Find(t.Context()); tt.found != (err == nil && got.Reveal() == key) || tt.found == errors.Is(err, keyring.ErrNone) {
				t.Errorf("got %q, %v", got.Reveal(), err)
			}
		})
	}
}

func TestKeepTakesNoKeyThatIsNone(t *testing.T) {
	dir := t.TempDir()
	s := filed(t, keyring.Options{StateDir: dir})
	if _, err := s.Keep(t.Context(), secret.New("two\nlines")); err == nil || !strings.HasPrefix(err.Error(), "a host key takes") {
		t.Errorf("got %v", err)
	}
	wantKey(t, s, key)
}
