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

const key = "dch_test_0123456789"

func write(t testing.TB, path string, mode os.FileMode, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFirstPlaceWins(t *testing.T) {
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "named"), 0o600, "from-the-file\n")
	credentials := t.TempDir()
	write(t, filepath.Join(credentials, "host-api-key"), 0o400, "from-the-supervisor")
	envFile := write(t, filepath.Join(dir, ".env"), 0o600, "")

	o := keyring.Options{File: file, CredentialsDir: credentials, Given: secret.New("from-the-environment"), StateDir: dir}
	steps := []struct {
		want, source string
		next         func()
	}{
		{"from-the-file", "file " + file, func() { o.File = "" }},
		{"from-the-supervisor", "credential " + filepath.Join(credentials, "host-api-key"), func() { o.CredentialsDir = t.TempDir() }},
		{"from-the-environment", "environment (HOST_API_KEY)", func() { o.GivenFile = envFile }},
		{"from-the-environment", "HOST_API_KEY in " + envFile, func() { o.Given = secret.String{} }},
	}
	for _, step := range steps {
		got, source, err := keyring.New(o).Find(t.Context())
		if err != nil || got.Reveal() != step.want || string(source) != step.source {
			t.Errorf("got %q from %q (%v), want %q from %q", got.Reveal(), source, err, step.want, step.source)
		}
		step.next()
	}
	if _, _, err := keyring.New(o).Find(t.Context()); !errors.Is(err, keyring.ErrNone) {
		t.Errorf("with no key anywhere: got %v, want ErrNone", err)
	}
}

func TestWhatStandsAroundAKeyIsDropped(t *testing.T) {
	for _, text := range []string{key, key + "\n", "  " + key + "\r\n\r\n", "\uFEFF" + key + "\r\n"} {
		if got, err := keyring.Parse(text); err != nil || got.Reveal() != key {
			t.Errorf("%q: got %q, %v", text, got.Reveal(), err)
		}
	}
}

func TestTokenIsNotCalledAKey(t *testing.T) {
	if got, err := keyring.ParseToken(" dce_token\n"); err != nil || got.Reveal() != "dce_token" {
		t.Errorf("got %q, %v", got.Reveal(), err)
	}
	for text, want := range map[string]string{
		"short":                  "an enrolment token takes 8 to 512 characters, got 5",
		"two words":              "an enrolment token takes letters, digits and signs of ASCII without spaces, got another character at place 4",
		strings.Repeat("k", 513): "an enrolment token takes 8 to 512 characters, got more",
	} {
		if _, err := keyring.ParseToken(text); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestNamedFileThatIsAbsentIsAnError(t *testing.T) {
	_, _, err := keyring.New(keyring.Options{File: filepath.Join(t.TempDir(), "none"), Given: secret.New(key)}).Find(t.Context())
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestKeysThatAreNone(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"empty":           {"", "takes 8 to 512 characters, got 0"},
		"short":           {"1234567", "takes 8 to 512 characters, got 7"},
		"space inside":    {"abcd efgh", "without spaces, got another character at place 5"},
		"two lines":       {"abcdefgh\nabcdefgh", "got another character at place 9"},
		"header split":    {"abcdefgh\r\nX-Evil: 1", "got another character at place 9"},
		"not ASCII":       {"schlüssel-123", "signs of ASCII without spaces, got another character at place 5"},
		"too long":        {strings.Repeat("k", 513), "takes 8 to 512 characters, got more"},
		"far too long":    {strings.Repeat("k", 1<<20), "takes 8 to 512 characters, got more"},
		"control in text": {"abcdefgh\x00", "got another character at place 9"},
	} {
		text := tt.text
		t.Run(name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "key"), 0o600, text)
			_, _, err := keyring.New(keyring.Options{File: path}).Find(t.Context())
			if err == nil || !strings.HasSuffix(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
			if err != nil && len(text) > 6 && strings.Contains(err.Error(), text[:6]) {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
}
