//go:build !windows && (!linux || !cgo)

package hardware

// openNVML cannot load a C library: this program was built without cgo, or for a system that has
// no such driver.
func openNVML(string) (gpuDriver, error) { return nil, nvmlLibraryNotFound }
