//go:build unix

package keyring

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// checkFolder has nothing to do: the file's own mode keeps others out, whatever the folder's is.
func checkFolder(string) error { return nil }

// openPrivate opens a file that its owner alone can read, and the owner is this user or root. The
// open file is judged, not the name, so nobody can exchange it in between.
func openPrivate(path string) (*os.File, error) {
	// O_NONBLOCK: a named pipe in the file's place must not hold the agent up.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("key file %s is a symbolic link; name the file itself", path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the key file: %w", err)
	}
	if err := checkPrivate(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func checkPrivate(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("looking at the key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("key file %s is not a regular file", f.Name())
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("key file %s can be read by other users (mode %04o); run: chmod 600 '%s'", f.Name(), mode, f.Name())
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if me := os.Geteuid(); owner != 0 && int(owner) != me {
		return fmt.Errorf("key file %s belongs to another user (uid %d); run: chown %d '%s'", f.Name(), owner, me, f.Name())
	}
	return nil
}
