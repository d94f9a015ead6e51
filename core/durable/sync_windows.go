package durable

import "os"

// syncDirectory does nothing: Windows has no way to flush a directory, and NTFS journals renames.
func syncDirectory(*os.Root) error { return nil }
