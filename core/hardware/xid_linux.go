package hardware

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The kernel's log is read as far as this, in records of at most so much.
const (
	mostLog    = 16 << 20
	mostRecord = 8 << 10
)

// Xids returns the errors that NVIDIA's driver has logged after the record with this number, and the number of
// the newest record. An agent that may not read the kernel's log gets an error.
func Xids(o Options, after int64) (found []Xid, last int64, err error) {
	fd, err := unix.Open(filepath.Join(o.withDefaults().root, "dev/kmsg"), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, after, fmt.Errorf("reading the kernel's log: %w", err)
	}
	defer unix.Close(fd)
	var text strings.Builder
	record := make([]byte, mostRecord)
	for text.Len() < mostLog {
		n, err := unix.Read(fd, record)
		switch {
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR): // the log has moved on meanwhile
			continue
		case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
			found, last = readXids(text.String(), after)
			return found, last, nil
		case err != nil:
			return nil, after, fmt.Errorf("reading the kernel's log: %w", err)
		}
		text.Write(record[:n])
	}
	found, last = readXids(text.String(), after)
	return found, last, nil
}
