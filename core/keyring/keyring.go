// Package keyring finds the host key: the secret by which the marketplace knows this host.
//
// The key comes from a file somebody named, from a credential of the service's supervisor, from
// HOST_API_KEY, or from the file that setup stored. A file counts only where nobody but its owner
// can read it; a credential is the supervisor's to guard. The package protects against other users
// and stray copies, not against programs of the same user or a stolen disk.
package keyring

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/distributedcompute/host-agent/core/durable"
	"github.com/distributedcompute/host-agent/core/secret"
)

// fileName names the stored key in the state directory, and the credential of a supervisor.
const fileName = "host-api-key"

// ErrNone says that there is no key anywhere; signing in makes one.
var ErrNone = errors.New("no host key found")

// Options say where to look, in the order in which the places count.
type Options struct {
	File           string        // a key file that somebody named; "": none
	CredentialsDir string        // directory of credentials of the supervisor (systemd), "": none
	Given          secret.String // HOST_API_KEY
	GivenFile      string        // the .env file Given was read from; "": the environment itself
	StateDir       string        // where Store keeps the key
}

// Source tells in words where a key came from, for a person.
type Source string

// Find returns the key of the first place that has one. A place that was named and cannot be used
// is an error, not a reason to look further.
func Find(o Options) (secret.String, Source, error) {
	if o.File != "" {
		key, err := readKey(o.File, openPrivate)
		return key, Source("file " + o.File), err
	}
	if o.CredentialsDir != "" {
		// The supervisor lets the service's user in by an access list, which shows in the file's mode
		// as if its group could read it; so the mode says nothing here.
		path := filepath.Join(o.CredentialsDir, fileName)
		if key, err := readKey(path, os.Open); !errors.Is(err, os.ErrNotExist) {
			return key, Source("credential " + path), err
		}
	}
	if !o.Given.Empty() {
		return given(o.Given, o.GivenFile)
	}
	path := storedPath(o.StateDir)
	key, err := readKey(path, openPrivate)
	if errors.Is(err, os.ErrNotExist) {
		return secret.String{}, "", ErrNone
	}
	return key, Stored(o.StateDir), err
}

// Stored is the source of a key that Store has kept.
func Stored(stateDir string) Source { return Source("stored unencrypted in " + storedPath(stateDir)) }

func given(key secret.String, envFile string) (secret.String, Source, error) {
	source := Source("environment (HOST_API_KEY)")
	if envFile != "" {
		source = Source("HOST_API_KEY in " + envFile)
		f, err := openPrivate(envFile)
		if err != nil {
			return secret.String{}, source, err
		}
		f.Close()
	}
	key, err := Parse(key.Reveal())
	if err != nil {
		return secret.String{}, source, fmt.Errorf("%s: %w", source, err)
	}
	return key, source, nil
}

const (
	minKey = 8 // characters
	maxKey = 512

	// byteOrderMark is what editors on Windows begin a text file with.
	byteOrderMark = "\uFEFF"
)

// Parse checks that text is a key: 8 to 512 visible ASCII characters. White space around it, and a
// byte order mark before it, are dropped. The error shows nothing of it.
func Parse(text string) (secret.String, error) {
	text = strings.TrimSpace(strings.TrimPrefix(text, byteOrderMark))
	odd := strings.IndexFunc(text, func(r rune) bool { return r < '!' || r > '~' })
	switch {
	case len(text) > maxKey:
		return secret.String{}, fmt.Errorf("a host key takes %d to %d characters, got more", minKey, maxKey)
	case odd >= 0:
		return secret.String{}, fmt.Errorf("a host key takes letters, digits and signs of ASCII without spaces, got another character at place %d", odd+1)
	case len(text) < minKey:
		return secret.String{}, fmt.Errorf("a host key takes %d to %d characters, got %d", minKey, maxKey, len(text))
	}
	return secret.New(text), nil
}

// maxFileBytes is more than every key and the white space around it.
const maxFileBytes = 4096

func readKey(path string, open func(string) (*os.File, error)) (secret.String, error) {
	f, err := open(path)
	if err != nil {
		return secret.String{}, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFileBytes))
	if err != nil {
		return secret.String{}, fmt.Errorf("reading the key file: %w", err)
	}
	key, err := Parse(string(content))
	if err != nil {
		return secret.String{}, fmt.Errorf("key file %s: %w", path, err)
	}
	return key, nil
}

func storedPath(stateDir string) string { return filepath.Join(stateDir, fileName) }

// Store keeps key in the state directory, which has to be there, and returns the file's path. The
// file appears whole or not at all.
func Store(stateDir string, key secret.String) (string, error) {
	if err := checkFolder(stateDir); err != nil {
		return "", err
	}
	root, err := os.OpenRoot(stateDir)
	if err != nil {
		return "", fmt.Errorf("opening the state directory: %w", err)
	}
	defer root.Close()
	if err := durable.Replace(root, fileName, []byte(key.Reveal()+"\n")); err != nil {
		if outer, ok := errors.AsType[*os.PathError](err); ok {
			err = outer.Err // the operation on a file in between says nothing to a person
		}
		return "", fmt.Errorf("storing the host key in %s: %w; make room there, or name another directory with --state-dir", stateDir, err)
	}
	return storedPath(stateDir), nil
}
