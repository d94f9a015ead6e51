//go:build wine

package wine

import (
	"bytes"
	"encoding/binary"
)

// prngDLL makes the bcryptprimitives.dll that Wine 8 lacks and every Go program takes ProcessPrng from. It has
// no code: its one export is a forwarder to advapi32's SystemFunction036, which takes the same arguments.
func prngDLL() []byte {
	const (
		base  = 0x1000 // where the section is in memory
		align = 0x200
		// The section: export directory, function table, name table, ordinal table, strings.
		functions = 40
		names     = functions + 4
		ordinals  = names + 4
		strings   = ordinals + 2
	)
	le := binary.LittleEndian
	section := make([]byte, strings)
	text := func(s string) uint32 {
		at := base + uint32(len(section))
		section = append(append(section, s...), 0)
		return at
	}
	le.PutUint32(section[12:], text("bcryptprimitives.dll"))
	le.PutUint32(section[16:], 1) // first ordinal
	le.PutUint32(section[20:], 1) // functions
	le.PutUint32(section[24:], 1) // names
	le.PutUint32(section[28:], base+functions)
	le.PutUint32(section[32:], base+names)
	le.PutUint32(section[36:], base+ordinals)
	le.PutUint32(section[functions:], text("advapi32.SystemFunction036")) // lies in the export directory: a forwarder
	le.PutUint32(section[names:], text("ProcessPrng"))
	size := uint32(len(section))
	section = append(section, make([]byte, align-len(section)%align)...)

	dos := make([]byte, 64)
	copy(dos, "MZ")
	le.PutUint32(dos[60:], 64) // where the headers are

	var b bytes.Buffer
	for _, part := range []any{
		dos,
		[]byte("PE\x00\x00"),
		[]uint16{0x8664, 1},     // amd64, one section
		[]uint32{0, 0, 0},       // time, symbols
		[]uint16{240, 0x2022},   // size of the optional header; executable, large addresses, DLL
		[]uint16{0x20b, 0},      // PE32+
		[]uint32{0, align, 0},   // code, initialised data, other data
		[]uint32{0, base},       // no entry point; base of code
		uint64(0x180000000),     // image base
		[]uint32{0x1000, align}, // alignment in memory and in the file
		[]uint16{6, 0, 0, 0, 6, 0},
		[]uint32{0, 0x2000, align, 0}, // image size, header size, checksum
		[]uint16{2, 0x100},            // GUI, no execution of data
		[]uint64{0x100000, 0x1000, 0x100000, 0x1000},
		[]uint32{0, 16},
		[]uint32{base, size}, // export directory
		make([]uint32, 30),   // no other
		[]byte(".rdata\x00\x00"),
		[]uint32{uint32(len(section)), base, uint32(len(section)), align, 0, 0, 0, 0x40000040},
	} {
		binary.Write(&b, le, part) // a bytes.Buffer takes everything
	}
	b.Write(make([]byte, align-b.Len()))
	b.Write(section)
	return b.Bytes()
}
