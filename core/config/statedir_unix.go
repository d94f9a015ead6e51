//go:build unix

package config

import (
	"fmt"
	"os"
	"syscall"
)

// MakeStateDir makes the directory of the agent's state where it is missing, for this user alone.
// One that others can enter is refused: keys and the control socket live there.
func MakeStateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w; name another with --state-dir", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("looking at the state directory: %w", err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int64(owner) != int64(os.Geteuid()) {
		return fmt.Errorf("the state directory %s belongs to another user (uid %d); name another with --state-dir", dir, owner)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("the state directory %s is open to other users (mode %04o); run: chmod 700 '%s'", dir, mode, dir)
	}
	return nil
}
