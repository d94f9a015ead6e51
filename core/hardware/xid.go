package hardware

import (
	"regexp"
	"strconv"
	"strings"
)

// Xid is an error of a GPU that NVIDIA's driver has written to the system's log.
type Xid struct {
	Bus    string // PCI address, "0000:01:00"
	Number int    // NVIDIA's number of the kind of error
}

var xidPattern = regexp.MustCompile(`^\d+,(\d+),[^;]*;NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)`)

// OfProgram tells errors that any faulty program makes, and that leave the GPU as it was, from those that say
// something of the GPU: a fault in graphics or memory addressing, a program cut off or stopped, an error of
// memory that was kept to the program.
func (x Xid) OfProgram() bool {
	switch x.Number {
	case 13, 31, 43, 45, 68, 69, 94:
		return true
	}
	return false
}

// On reports whether the error is that of the GPU at this PCI address, which may be written with more zeros.
func (x Xid) On(bus string) bool {
	return x.Bus != "" && strings.Contains(strings.ToLower(bus), strings.ToLower(x.Bus))
}

// readXids takes the errors out of lines of the kernel's log that follow the one with the number after; last is
// that of the newest line.
func readXids(text string, after int64) (found []Xid, last int64) {
	last = after
	for row := range strings.Lines(text) {
		cells := strings.SplitN(row, ",", 3)
		if len(cells) < 3 {
			continue
		}
		number, err := strconv.ParseInt(cells[1], 10, 64)
		if err != nil || strings.HasPrefix(row, " ") || number <= after {
			continue
		}
		last = max(last, number)
		if m := xidPattern.FindStringSubmatch(row); m != nil {
			kind, _ := strconv.Atoi(m[3])
			found = append(found, Xid{Bus: strings.ToLower(m[2]), Number: kind})
		}
	}
	return found, last
}
