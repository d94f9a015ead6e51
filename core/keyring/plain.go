package keyring

import (
	"context"
	"path/filepath"

	"github.com/distributedcompute/host-agent/core/secret"
)

func plainPath(stateDir string) string { return filepath.Join(stateDir, fileName) }

func plainSource(stateDir string) Source {
	return Source("stored unencrypted in " + plainPath(stateDir))
}

// Find returns the key of the first place that has one.
func Find(o Options) (secret.String, Source, error) { return New(o).Find(context.Background()) }

// Stored is the source of a key that StoreFile has kept.
func Stored(stateDir string) Source { return plainSource(stateDir) }

// StoreFile keeps key unencrypted in the state directory, which has to be there, and returns the
// file's path. The file appears whole or not at all.
func StoreFile(stateDir string, key secret.String) (string, error) {
	return plainPath(stateDir), replace(stateDir, fileName, []byte(key.Reveal()+"\n"))
}
