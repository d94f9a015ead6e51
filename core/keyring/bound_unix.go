//go:build unix

package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// saltName is a file of random bytes without which the machine's id, which others can read, opens nothing.
const saltName = "credentials.salt"

const boundWords = "bound to this machine and user: keeps it out of copies of this folder, not of the whole system, and not from programs of this user or root"

// binding seals for this machine, this user and the state directory's salt.
type binding struct{ aead cipher.AEAD }

// binding derives what seals the file. Where the file is made anew a salt that is missing is made too.
func (s *Store) binding(anew bool) (*binding, error) {
	id, err := s.machine()
	if err != nil {
		return nil, fmt.Errorf("this machine has no id to bind the host key to (%w); name a file with a passphrase in keyring.passphrase_file", err)
	}
	salt, err := readRandom(s.o.StateDir, saltName)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errDamaged) {
		if !anew {
			return nil, lostf("%s cannot be opened without the %s it was made with; put that back, or sign in again", s.sealedPath(), saltName)
		}
		salt, err = makeRandom(s.o.StateDir, saltName)
	}
	if err != nil {
		return nil, err
	}
	aead, err := derive(salt, id, strconv.Itoa(os.Getuid()))
	if err != nil {
		return nil, fmt.Errorf("deriving the key of the encrypted file: %w", err)
	}
	return &binding{aead}, nil
}

func derive(salt []byte, machine, user string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, salt, []byte(machine), "distributedcompute host key of user "+user, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (b *binding) seal(plain []byte) ([]byte, error) { return b.aead.Seal(nil, nil, plain, nil), nil }

func (b *binding) unseal(sealed []byte) ([]byte, error) { return b.aead.Open(nil, nil, sealed, nil) }
