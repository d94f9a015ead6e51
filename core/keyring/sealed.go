package keyring

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"filippo.io/age"

	"github.com/distributedcompute/host-agent/core/secret"
)

// sealedName is the encrypted file in the state directory.
const sealedName = "credentials.age"

// passphraseName names the passphrase among a supervisor's credentials.
const passphraseName = "key-passphrase"

// What trying one passphrase costs, as a power of two for scrypt: 0.6 s and 256 MB of a server's CPU for one
// that could be guessed, 0.09 s and 32 MB for a long one, which is beyond guessing at any price. Whether it is
// random or words that a person picked cannot be seen; at this length it need not be.
const (
	costly, cheap   = 18, 15
	longPassphrase  = 24 // characters
	shortPassphrase = 8  // none is shorter
)

// boundStanza marks a file that is bound to machine and user in its header.
const boundStanza = "distributedcompute.host/bound"

// boundKey is a binding as a recipient and an identity of age.
type boundKey struct{ *binding }

func (b boundKey) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	body, err := b.seal(fileKey)
	return []*age.Stanza{{Type: boundStanza, Body: body}}, err
}

func (b boundKey) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, stanza := range stanzas {
		if stanza.Type != boundStanza {
			continue
		}
		if fileKey, err := b.unseal(stanza.Body); err == nil {
			return fileKey, nil
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// opened is a key that a passphrase has opened, so that looking for the key again costs nothing.
type opened struct {
	by  [sha256.Size]byte // file and passphrase
	key secret.String
}

func (s *Store) sealedPath() string { return filepath.Join(s.o.StateDir, sealedName) }

func (s *Store) sealedSource(how string) Source {
	return Source("encrypted file " + s.sealedPath() + ", " + how)
}

// seal encrypts the key.
func (s *Store) seal(key secret.String) ([]byte, error) {
	recipient, err := s.recipient()
	if err != nil {
		return nil, err
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, recipient)
	if err != nil {
		return nil, fmt.Errorf("encrypting the host key: %w", err)
	}
	_, err = io.WriteString(w, key.Reveal())
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("encrypting the host key: %w", err)
	}
	return sealed.Bytes(), nil
}

func (s *Store) recipient() (age.Recipient, error) {
	passphrase, _, err := s.passphrase()
	if err != nil {
		return nil, err
	}
	if passphrase.Empty() {
		b, err := s.binding(true)
		return boundKey{b}, err
	}
	r, err := age.NewScryptRecipient(passphrase.Reveal())
	if err != nil {
		return nil, fmt.Errorf("encrypting the host key: %w", err)
	}
	r.SetWorkFactor(cost(passphrase.Reveal()))
	return r, nil
}

func cost(passphrase string) int {
	if utf8.RuneCountInString(passphrase) >= longPassphrase {
		return cheap
	}
	return costly
}

// open reads the encrypted file; ErrNone where there is none.
func (s *Store) open() (secret.String, Source, error) {
	content, err := readFile(s.sealedPath(), openPrivate)
	if errors.Is(err, os.ErrNotExist) {
		return secret.String{}, "", fmt.Errorf("%w: %s is gone", ErrNone, s.sealedPath())
	}
	if err != nil {
		return secret.String{}, Source("encrypted file " + s.sealedPath()), err
	}
	header, err := age.ExtractHeader(bytes.NewReader(content))
	if err != nil {
		return secret.String{}, Source("encrypted file " + s.sealedPath()), s.damaged()
	}
	if bytes.Contains(header, []byte("\n-> scrypt ")) {
		return s.openWithPassphrase(content)
	}
	source := s.sealedSource(boundWords)
	b, err := s.binding(false)
	if err != nil {
		return secret.String{}, source, err
	}
	key, err := s.unseal(content, boundKey{b})
	if isOther(err) {
		err = lostf("%s was encrypted on another machine or by another user and cannot be opened here; sign in again", s.sealedPath())
	}
	return key, source, err
}

func (s *Store) openWithPassphrase(content []byte) (secret.String, Source, error) {
	passphrase, where, err := s.passphrase()
	if err == nil && passphrase.Empty() {
		err = fmt.Errorf("%w: %s is encrypted with a passphrase and none is given; name its file in keyring.passphrase_file", ErrUnavailable, s.sealedPath())
	}
	if err != nil {
		return secret.String{}, Source("encrypted file " + s.sealedPath()), err
	}
	source := s.sealedSource("opened with the passphrase of " + where + ": keeps it out of copies without that passphrase, not from programs of this user or root")
	s.opening.Lock()
	defer s.opening.Unlock()
	by := sha256.Sum256(append(bytes.Clone(content), passphrase.Reveal()...))
	if s.opened.by == by {
		return s.opened.key, source, nil
	}
	identity, err := age.NewScryptIdentity(passphrase.Reveal())
	if err != nil {
		return secret.String{}, source, fmt.Errorf("decrypting the host key: %w", err)
	}
	identity.SetMaxWorkFactor(costly)
	key, err := s.unseal(content, identity)
	if isOther(err) {
		err = fmt.Errorf("the passphrase of %s does not open %s; give the one it was made with, or sign in again", where, s.sealedPath())
	}
	if err == nil {
		s.opened = opened{by, key}
	}
	return key, source, err
}

func isOther(err error) bool {
	_, other := errors.AsType[*age.NoIdentityMatchError](err)
	return other
}

// unseal returns age's own error where the identity is another one than the file was encrypted for.
func (s *Store) unseal(content []byte, identity age.Identity) (secret.String, error) {
	r, err := age.Decrypt(bytes.NewReader(content), identity)
	if isOther(err) {
		return secret.String{}, err
	}
	if err != nil {
		return secret.String{}, s.damaged()
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return secret.String{}, s.damaged()
	}
	key, err := Parse(string(text))
	if err != nil {
		return secret.String{}, lostf("encrypted file %s: %v", s.sealedPath(), err)
	}
	return key, nil
}

func (s *Store) damaged() error {
	return lostf("%s is damaged; restore it, or sign in again", s.sealedPath())
}

// passphrase returns the one that is given and where it is from; an empty one where none is.
func (s *Store) passphrase() (text secret.String, where string, err error) {
	if s.o.CredentialsDir != "" {
		path := filepath.Join(s.o.CredentialsDir, passphraseName)
		content, err := readFile(path, os.Open)
		if !errors.Is(err, os.ErrNotExist) {
			return checkPassphrase(content, "credential "+path, err)
		}
	}
	if s.o.PassphraseFile != "" {
		content, err := readFile(s.o.PassphraseFile, openPrivate)
		return checkPassphrase(content, "file "+s.o.PassphraseFile, err)
	}
	return secret.String{}, "", nil
}

func checkPassphrase(content []byte, where string, err error) (secret.String, string, error) {
	if err != nil {
		return secret.String{}, where, fmt.Errorf("reading the passphrase of the encrypted file: %w", err)
	}
	text := strings.TrimSpace(string(content))
	if n := utf8.RuneCountInString(text); n < shortPassphrase {
		return secret.String{}, where, fmt.Errorf("the passphrase of %s has %d characters; give one of at least %d, better %d random ones",
			where, n, shortPassphrase, longPassphrase)
	}
	return secret.New(text), where, nil
}
