package rental

import (
	"errors"
	"io/fs"
	"os"

	"github.com/distributedcompute/host-agent/core/durable"
)

// disk is what the ledger needs of a directory. Names hold no separators.
type disk interface {
	names() ([]string, error)
	read(name string) ([]byte, error)
	// replace puts data in place of a file, whole or not at all, and waits until it is on the medium.
	replace(name string, data []byte) error
	// extend adds data at a file's end; with wait it returns once that is on the medium.
	extend(name string, data []byte, wait bool) error
	rename(from, to string) error
	remove(name string) error
}

// directory is the disk there is. os.Root keeps every access inside it.
type directory struct{ root *os.Root }

func openDirectory(path string) (directory, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return directory{}, err
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return directory{}, err
	}
	root, err := os.OpenRoot(path)
	return directory{root}, err
}

func (d directory) names() ([]string, error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (d directory) read(name string) ([]byte, error) { return d.root.ReadFile(name) }

func (d directory) replace(name string, data []byte) error {
	return durable.Replace(d.root, name, data)
}

func (d directory) extend(name string, data []byte, wait bool) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && wait {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (d directory) rename(from, to string) error { return d.root.Rename(from, to) }

func (d directory) remove(name string) error { return d.root.Remove(name) }
