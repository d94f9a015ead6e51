//go:build unix

package durable

import (
	"errors"
	"os"
)

// syncDirectory waits until renames in a directory are on the medium.
func syncDirectory(root *os.Root) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
