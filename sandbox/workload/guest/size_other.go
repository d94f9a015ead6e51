//go:build !linux

package main

// sizeOf is not told here: the image's program is built for Linux alone.
func sizeOf(string) int64 { return 0 }
