//go:build !linux

package hardware

// RunsIn is not known: where containers run in a virtual machine, their processes are none of this system's.
func RunsIn(Options, int, string) (yes, known bool) { return false, false }

// Alive reports whether a process is there and has not ended; where the system does not tell, it is.
func Alive(Options, int) bool { return true }

// BootID is another one after each start of the system; "" where that is not known.
func BootID(Options) string { return "" }

// Xids are written to the kernel's log of Linux only.
func Xids(_ Options, after int64) (found []Xid, last int64, err error) { return nil, after, nil }
