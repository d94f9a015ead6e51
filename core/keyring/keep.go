package keyring

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distributedcompute/host-agent/core/durable"
	"github.com/distributedcompute/host-agent/core/secret"
)

// Keep puts key where Find looks for it, in place of the one kept before, and tells where that is: in the
// keyring, or in the encrypted file where there is no keyring that can be used. Once a key is in the file
// those after it go there too, until Forget. The new key has been read back before the old one goes;
// after an error the old one is still found. A place named in Options goes before what is kept.
func (s *Store) Keep(ctx context.Context, key secret.String) (Source, error) {
	if _, err := Parse(key.Reveal()); err != nil {
		return "", err
	}
	s.keeping.Lock()
	defer s.keeping.Unlock()
	old, err := readPlace(s.o.StateDir)
	if err != nil {
		old = place{} // its sentence says to sign in again, which is to come here
	}
	if old.Kind == inFile && old.serves(s.o.Origin) {
		return s.keepInFile(ctx, key, old)
	}
	source, err := s.keepInKeyring(ctx, key, old)
	if err == nil || ctx.Err() != nil {
		return source, err
	}
	return s.keepInFile(ctx, key, old)
}

func (s *Store) keepInKeyring(ctx context.Context, key secret.String, old place) (Source, error) {
	limit := quick
	if s.o.Interactive && old.Kind == "" {
		limit = patient
	}
	entry := s.freeEntry(old)
	if err := s.ring.set(ctx, limit, entry, key.Reveal()); err != nil {
		return "", err
	}
	text, err := s.ring.get(ctx, entry)
	if err == nil && text != key.Reveal() {
		err = fmt.Errorf("%s gave back another key than it was given", ringName)
	}
	now := place{Kind: inKeyring, Origin: s.o.Origin, Entry: entry, Left: old.entries()}
	if err == nil {
		err = now.write(s.o.StateDir)
	}
	if err != nil {
		return "", errors.Join(err, s.ring.remove(context.WithoutCancel(ctx), entry))
	}
	s.tidy(ctx, now)
	return ringSource(entry), nil
}

// freeEntry names the entry for a new key: never the one that holds the present key, because a write that
// comes too late is taken back by removing the entry. There are two names in turn, so that one that a crash
// left without a note of it is written over by the next key.
func (s *Store) freeEntry(old place) string {
	names := s.entryNames()
	if old.Entry == names[0] {
		return names[1]
	}
	return names[0]
}

func (s *Store) entryNames() [2]string {
	dir, err := filepath.Abs(s.o.StateDir)
	if err != nil {
		dir = s.o.StateDir
	}
	sum := sha256.Sum256([]byte(dir)) // another agent of this user has another directory
	name := strings.TrimSpace(fmt.Sprintf("%s %x", s.o.Origin, sum[:6]))
	return [2]string{name + "-1", name + "-2"}
}

func (s *Store) keepInFile(ctx context.Context, key secret.String, old place) (Source, error) {
	sealed, err := s.seal(key)
	if err != nil {
		return "", err
	}
	before, err := readFile(s.sealedPath(), openPrivate)
	if err != nil {
		before = nil // what cannot be read is nothing to go back to
	}
	if err := replace(s.o.StateDir, sealedName, sealed); err != nil {
		return "", err
	}
	back, source, err := s.open()
	if err == nil && !back.Equal(key) {
		err = fmt.Errorf("%s holds another key than was written to it", s.sealedPath())
	}
	now := place{Kind: inFile, Origin: s.o.Origin, Left: old.entries()}
	if err == nil && !now.same(old) {
		err = now.write(s.o.StateDir)
	}
	if err != nil {
		if before == nil {
			return "", errors.Join(err, s.unlink(sealedName))
		}
		return "", errors.Join(err, replace(s.o.StateDir, sealedName, before))
	}
	s.tidy(ctx, now)
	return source, nil
}

// tidy removes what older keys have left outside the place that counts now. What cannot be removed stays
// noted, or is tried again next time: the new key is in its place, and a key that was replaced is void soon.
func (s *Store) tidy(ctx context.Context, now place) {
	if now.Kind == inKeyring {
		_ = s.unlink(sealedName, saltName)
	}
	if len(now.Left) == 0 {
		return
	}
	now.Left = slices.DeleteFunc(now.Left, func(entry string) bool {
		return entry == now.Entry || s.ring.remove(ctx, entry) == nil
	})
	_ = now.write(s.o.StateDir)
}

// Forget removes what Keep has kept, and what an older key has left. The left one is a place that has a key
// still and is not this package's to clear: a named file, a credential, HOST_API_KEY; "" where there is
// none. After an error a kept key that could not be removed is found as before; what is left goes with the
// next Keep or Forget.
func (s *Store) Forget(ctx context.Context) (left Source, err error) {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	left = s.o.occupied()
	p, err := readPlace(s.o.StateDir)
	if err != nil {
		// Whether there is an entry cannot be told; where there is no keyring either, that is no error.
		p = place{}
		for _, entry := range s.entryNames() {
			_ = s.ring.remove(ctx, entry)
		}
	}
	// The salt goes last: without it the key could not be read any more.
	if err := s.unlink(sealedName+durable.Suffix, sealedName, saltName); err != nil {
		return left, err
	}
	var failed []error
	remains := slices.DeleteFunc(p.entries(), func(entry string) bool {
		err := s.ring.remove(ctx, entry)
		if err != nil {
			failed = append(failed, err)
		}
		return err == nil
	})
	if len(remains) > 0 {
		now := place{Left: remains}
		if slices.Contains(remains, p.Entry) { // nor is it forgotten where the kept key is
			now.Kind, now.Origin, now.Entry = p.Kind, p.Origin, p.Entry
		}
		return left, errors.Join(failed[0], now.write(s.o.StateDir))
	}
	return left, s.unlink(placeName)
}

// occupied tells which place that Keep does not write to has a key, usable or not.
func (o Options) occupied() Source {
	if o.File != "" && exists(o.File) {
		return fileSource(o.File)
	}
	if path := filepath.Join(o.CredentialsDir, keyName); o.CredentialsDir != "" && exists(path) {
		return credentialSource(path)
	}
	if !o.Given.Empty() {
		return givenSource(o.GivenFile)
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// unlink removes files of the state directory, those that are there.
func (s *Store) unlink(names ...string) error {
	for _, name := range names {
		if name == "" {
			continue
		}
		if err := os.Remove(filepath.Join(s.o.StateDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing the host key: %w", err)
		}
	}
	return nil
}
