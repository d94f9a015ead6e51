// Package durable replaces small private files so that a crash or a power cut leaves the old one or
// the new one, never half of one.
package durable

import (
	"errors"
	"io/fs"
	"os"
)

// Suffix is what a file's name ends in while its next content is being written. After a crash such
// a file may be left over; it counts for nothing, and the next Replace takes its place.
const Suffix = ".new"

// Replace puts content in place of the file name in root, readable by its owner alone, and returns
// once it is on the medium. What is at name already, a link too, is replaced and not followed. After an
// error the old content is there, or the new one, which a power cut may still undo: the last step, making
// the rename last, can fail too.
func Replace(root *os.Root, name string, content []byte) error {
	fresh := name + Suffix
	// A leftover goes first: an existing file would keep its mode, a link would lead elsewhere.
	if err := root.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := write(root, fresh, content); err != nil {
		return err
	}
	if err := root.Rename(fresh, name); err != nil {
		return errors.Join(err, root.Remove(fresh)) // it may hold secrets
	}
	return syncDirectory(root)
}

func write(root *os.Root, name string, content []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, root.Remove(name)) // half of a secret is one too
	}
	return nil
}
