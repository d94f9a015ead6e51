package keyring

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/distributedcompute/host-agent/core/durable"
)

const (
	ownerFile  = "owner.key"
	ownerBytes = 32
)

// OwnerKey returns the random key with which this host marks what it has made, so that nothing
// else can pass for it. The first call makes it; it stays the same for the state directory.
func OwnerKey(stateDir string) ([]byte, error) {
	path := filepath.Join(stateDir, ownerFile)
	f, err := openPrivate(path)
	if errors.Is(err, os.ErrNotExist) {
		return makeOwnerKey(stateDir)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes))
	if err != nil {
		return nil, fmt.Errorf("reading the owner key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != ownerBytes {
		return nil, fmt.Errorf("the owner key in %s is damaged; restore it, or delete it once no rental of this host runs", path)
	}
	return key, nil
}

func makeOwnerKey(stateDir string) ([]byte, error) {
	key := make([]byte, ownerBytes)
	rand.Read(key) // never fails, says its documentation
	root, err := os.OpenRoot(stateDir)
	if err != nil {
		return nil, fmt.Errorf("opening the state directory: %w", err)
	}
	defer root.Close()
	if err := durable.Replace(root, ownerFile, []byte(hex.EncodeToString(key)+"\n")); err != nil {
		return nil, fmt.Errorf("storing the owner key: %w", err)
	}
	return key, nil
}
