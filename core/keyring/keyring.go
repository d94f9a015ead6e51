// Package keyring holds the host key at rest: the secret by which the marketplace knows this host.
//
// The key comes from a file somebody named, from a credential of the service's supervisor, from
// HOST_API_KEY, or from where Keep has put it: the keyring of the operating system, or else an
// encrypted file in the state directory. Which of the two is remembered, and only that place is asked, so
// a keyring that is locked is told and not taken for an empty one. A plain file counts only where nobody
// but its owner can read it; a credential is the supervisor's to guard.
//
// None of these places keeps the key from root, or from programs of this user while the agent can
// start by itself. What a place does protect against, its Source says.
package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/distributedcompute/host-agent/core/durable"
	"github.com/distributedcompute/host-agent/core/secret"
)

// keyName names the key among a supervisor's credentials.
const keyName = "host-api-key"

var (
	// ErrNone says that there is no key anywhere; signing in makes one.
	ErrNone = errors.New("no host key found")
	// ErrUnavailable says that the place that holds the key cannot be read now: the keyring is locked, does
	// not answer or has no desktop to it. Asking later can help; a new key is not needed.
	ErrUnavailable = errors.New("the host key cannot be read now")
	// ErrLost says that what was kept can never be read again: a file is damaged, or was made elsewhere. No
	// waiting helps; signing in makes a new key.
	ErrLost = errors.New("the kept host key is lost")
)

// lost is an ErrLost that has its own sentence.
type lost string

func (l lost) Error() string { return string(l) }

func (lost) Is(target error) bool { return target == ErrLost }

func lostf(format string, args ...any) error { return lost(fmt.Sprintf(format, args...)) }

// Options say where to look, in the order in which the places count.
type Options struct {
	File           string        // a key file that somebody named; "": none
	CredentialsDir string        // directory of credentials of the supervisor (systemd), "": none
	Given          secret.String // HOST_API_KEY
	GivenFile      string        // the .env file Given was read from; "": the environment itself
	StateDir       string        // has to be there, and this user's alone, for Keep
	Origin         string        // scheme and host of the marketplace; a key kept for another one is not found. "": any

	// PassphraseFile holds the passphrase of the encrypted file; "": none. A credential named
	// key-passphrase in CredentialsDir goes before it. Without either the file is bound to machine and user.
	PassphraseFile string
	// Interactive tells that somebody is there to unlock a keyring that asks for its password: the first
	// Keep then waits a minute for it, otherwise 3 s.
	Interactive bool
}

// Source tells in words where a key is, and what that protects against, for a person.
type Source string

// Store finds and keeps the host key of one state directory. It is safe for concurrent use.
type Store struct {
	o       Options
	ring    *ring
	machine func() (string, error) // names this machine, see machineID

	keeping sync.Mutex // one Keep or Forget at a time
	opening sync.Mutex // guards opened, and that one costly passphrase is worked on at a time
	opened  opened
}

// New returns a store. It reads nothing yet.
func New(o Options) *Store { return &Store{o: o, ring: newRing(), machine: machineID} }

// Find returns the key of the first place that has one. A place that was named and cannot be used
// is an error, not a reason to look further; nor is a kept key that cannot be read (ErrUnavailable, ErrLost). A
// keyring has 3 s to answer. One that still owes an answer is not asked again: Find then returns
// ErrUnavailable at once, until the answer is there.
func (s *Store) Find(ctx context.Context) (secret.String, Source, error) {
	key, source, err := s.o.named()
	if !errors.Is(err, ErrNone) {
		return key, source, err
	}
	return s.kept(ctx)
}

// Keeps reports whether a source of Find's is where Keep puts keys, not a place that was named. That one
// may be "": what remembers it is damaged.
func (s *Store) Keeps(source Source) bool {
	switch source {
	case fileSource(s.o.File), credentialSource(filepath.Join(s.o.CredentialsDir, keyName)), givenSource(s.o.GivenFile):
		return false
	}
	return true
}

// Kept returns the key that Keep has kept, whatever Find puts before it.
func (s *Store) Kept(ctx context.Context) (secret.String, error) {
	key, _, err := s.kept(ctx)
	return key, err
}

// named looks in the places that Keep never writes to.
func (o Options) named() (secret.String, Source, error) {
	if o.File != "" {
		key, err := readKey(o.File, openPrivate)
		return key, fileSource(o.File), err
	}
	if o.CredentialsDir != "" {
		// The supervisor lets the service's user in by an access list, which shows in the file's mode
		// as if its group could read it; so the mode says nothing here.
		path := filepath.Join(o.CredentialsDir, keyName)
		if key, err := readKey(path, os.Open); !errors.Is(err, os.ErrNotExist) {
			return key, credentialSource(path), err
		}
	}
	if !o.Given.Empty() {
		return given(o.Given, o.GivenFile)
	}
	return secret.String{}, "", ErrNone
}

func fileSource(path string) Source       { return Source("file " + path) }
func credentialSource(path string) Source { return Source("credential " + path) }

func givenSource(envFile string) Source {
	if envFile != "" {
		return Source("HOST_API_KEY in " + envFile)
	}
	return "environment (HOST_API_KEY)"
}

func given(key secret.String, envFile string) (secret.String, Source, error) {
	source := givenSource(envFile)
	if envFile != "" {
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

// kept looks where Keep has put the key.
func (s *Store) kept(ctx context.Context) (secret.String, Source, error) {
	p, err := readPlace(s.o.StateDir)
	if err != nil {
		return secret.String{}, "", err
	}
	for {
		key, source, err := s.at(ctx, p)
		if err == nil {
			return key, source, nil
		}
		// Between reading the place and looking there another process may have moved the key; a keyring
		// may call an entry that goes meanwhile an error of its own.
		now, failed := readPlace(s.o.StateDir)
		if failed != nil || now.same(p) {
			return key, source, err
		}
		p = now
	}
}

func (s *Store) at(ctx context.Context, p place) (secret.String, Source, error) {
	switch {
	case p.Kind == "":
		return secret.String{}, "", ErrNone
	case !p.serves(s.o.Origin):
		return secret.String{}, "", fmt.Errorf("%w for %s: the one kept here is for %s; sign in", ErrNone, s.o.Origin, p.Origin)
	case p.Kind == inKeyring:
		text, err := s.ring.get(ctx, p.Entry)
		if err != nil {
			return secret.String{}, ringSource(p.Entry), err
		}
		key, err := Parse(text)
		if err != nil {
			err = lostf("entry %q of %s: %v", p.Entry, ringName, err)
		}
		return key, ringSource(p.Entry), err
	case p.Kind == inFile:
		return s.open()
	}
	return secret.String{}, "", fmt.Errorf("the host key is kept in a place this version does not know (%q in %s); use the version that kept it, or sign in again",
		p.Kind, filepath.Join(s.o.StateDir, placeName))
}

const (
	minKey = 8 // characters
	maxKey = 512

	// byteOrderMark is what editors on Windows begin a text file with.
	byteOrderMark = "\uFEFF"
)

// Parse checks that text is a key: 8 to 512 visible ASCII characters. White space around it, and a
// byte order mark before it, are dropped. The error shows nothing of it.
func Parse(text string) (secret.String, error) { return parse("a host key", text) }

// ParseToken is Parse for an enrolment token, which looks like a key.
func ParseToken(text string) (secret.String, error) { return parse("an enrolment token", text) }

func parse(what, text string) (secret.String, error) {
	text = strings.TrimSpace(strings.TrimPrefix(text, byteOrderMark))
	odd := strings.IndexFunc(text, func(r rune) bool { return r < '!' || r > '~' })
	switch {
	case len(text) > maxKey:
		return secret.String{}, fmt.Errorf("%s takes %d to %d characters, got more", what, minKey, maxKey)
	case odd >= 0:
		return secret.String{}, fmt.Errorf("%s takes letters, digits and signs of ASCII without spaces, got another character at place %d", what, odd+1)
	case len(text) < minKey:
		return secret.String{}, fmt.Errorf("%s takes %d to %d characters, got %d", what, minKey, maxKey, len(text))
	}
	return secret.New(text), nil
}

// maxFileBytes is more than every key, sealed or not, and the white space around it.
const maxFileBytes = 4096

func readKey(path string, open func(string) (*os.File, error)) (secret.String, error) {
	content, err := readFile(path, open)
	if err != nil {
		return secret.String{}, err
	}
	key, err := Parse(string(content))
	if err != nil {
		return secret.String{}, fmt.Errorf("key file %s: %w", path, err)
	}
	return key, nil
}

func readFile(path string, open func(string) (*os.File, error)) ([]byte, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFileBytes))
	if err != nil {
		return nil, fmt.Errorf("reading the key file: %w", err)
	}
	return content, nil
}

// replace puts content in place of a file of the state directory, whole or not at all.
func replace(stateDir, name string, content []byte) error {
	if err := checkFolder(stateDir); err != nil {
		return err
	}
	root, err := os.OpenRoot(stateDir)
	if err != nil {
		return fmt.Errorf("opening the state directory: %w", err)
	}
	defer root.Close()
	if err := durable.Replace(root, name, content); err != nil {
		if outer, ok := errors.AsType[*os.PathError](err); ok {
			err = outer.Err // the operation on a file in between says nothing to a person
		}
		return fmt.Errorf("storing %s in %s: %w; make room there, or name another directory with --state-dir", name, stateDir, err)
	}
	return nil
}
