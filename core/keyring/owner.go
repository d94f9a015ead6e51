package keyring

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	ownerFile   = "owner.key"
	randomBytes = 32
)

var errDamaged = errors.New("the file is damaged")

// OwnerKey returns the random key with which this host marks what it has made, so that nothing
// else can pass for it. The first call makes it; it stays the same for the state directory.
func OwnerKey(stateDir string) ([]byte, error) {
	key, err := readRandom(stateDir, ownerFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return makeRandom(stateDir, ownerFile)
	case errors.Is(err, errDamaged):
		return nil, fmt.Errorf("the owner key in %s is damaged; restore it, or delete it once no rental of this host runs", filepath.Join(stateDir, ownerFile))
	}
	return key, err
}

// readRandom reads what makeRandom made.
func readRandom(stateDir, name string) ([]byte, error) {
	text, err := readFile(filepath.Join(stateDir, name), openPrivate)
	if err != nil {
		return nil, err
	}
	random, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(random) != randomBytes {
		return nil, errDamaged
	}
	return random, nil
}

func makeRandom(stateDir, name string) ([]byte, error) {
	random := make([]byte, randomBytes)
	rand.Read(random) // never fails, says its documentation
	return random, replace(stateDir, name, []byte(hex.EncodeToString(random)+"\n"))
}
