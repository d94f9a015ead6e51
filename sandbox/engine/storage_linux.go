package engine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
)

// storageSize is that of a file system made for an engine, where no other is asked for.
const storageSize = 1 << 30

// storageDrivers are the engine's for file systems that can be asked for.
var storageDrivers = map[string]string{"ext4": "overlay2", "btrfs": "btrfs"}

// mountStorage makes a file system in a file and mounts it at dir. The loop device goes with the mount, however
// that ends: by Stop, or with the namespace.
func mountStorage(ctx context.Context, kind string, size int64, file, dir string) error {
	if storageDrivers[kind] == "" {
		return fmt.Errorf("storage %q: takes ext4 or btrfs", kind)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("making the engine's storage: %w", err)
	}
	err = f.Truncate(size)
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return fmt.Errorf("making the engine's storage: %w", err)
	}
	if err := os.Mkdir(dir, 0o711); err != nil {
		return fmt.Errorf("making the engine's storage: %w", err)
	}
	if err := command(ctx, "mkfs."+kind, "-q", file); err != nil {
		return err
	}
	return command(ctx, "mount", "-t", kind, "-o", "loop", file, dir)
}

// command runs a system program.
func command(ctx context.Context, name string, args ...string) error {
	program, err := lookUp(name)
	if err != nil {
		return err
	}
	if said, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w: %s", name, err, bytes.TrimSpace(said))
	}
	return nil
}
