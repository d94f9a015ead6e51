package keyring

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/distributedcompute/host-agent/core/durable"
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
	root, err := os.OpenRoot(stateDir)
	if err != nil {
		return nil, fmt.Errorf("opening the state directory: %w", err)
	}
	defer root.Close()
	if err := durable.Replace(root, name, []byte(hex.EncodeToString(random)+"\n")); err != nil {
		return nil, fmt.Errorf("storing %s: %w", name, err)
	}
	return random, nil
}
