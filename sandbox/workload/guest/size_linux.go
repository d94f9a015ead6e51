package main

import "syscall"

// sizeOf is the size of the file system that holds path, in bytes; 0 where it cannot be told.
func sizeOf(path string) int64 {
	var stat syscall.Statfs_t
	if syscall.Statfs(path, &stat) != nil {
		return 0
	}
	return int64(stat.Blocks) * stat.Bsize
}
