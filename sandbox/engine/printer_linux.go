package engine

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"runtime"
)

// printerBase is where a printer is loaded.
const printerBase = 0x400000

// printerCode writes the text that follows it to standard output and exits with 0. The text's
// length is filled in at lengthAt.
var printerCode = map[string]struct {
	machine  elf.Machine
	lengthAt int
	code     []byte
}{
	"amd64": {elf.EM_X86_64, 18, []byte{
		0xb8, 1, 0, 0, 0, // mov eax, 1 (write)
		0xbf, 1, 0, 0, 0, // mov edi, 1 (standard output)
		0x48, 0x8d, 0x35, 16, 0, 0, 0, // lea rsi, [rip+16] (the text)
		0xba, 0, 0, 0, 0, // mov edx, length
		0x0f, 0x05, // syscall
		0xb8, 60, 0, 0, 0, // mov eax, 60 (exit)
		0x31, 0xff, // xor edi, edi
		0x0f, 0x05, // syscall
	}},
	"arm64": {elf.EM_AARCH64, 32, []byte{
		0x20, 0x00, 0x80, 0xd2, // mov x0, 1 (standard output)
		0x01, 0x01, 0x00, 0x10, // adr x1, .+32 (the text)
		0xc2, 0x00, 0x00, 0x18, // ldr w2, .+24 (length)
		0x08, 0x08, 0x80, 0xd2, // mov x8, 64 (write)
		0x01, 0x00, 0x00, 0xd4, // svc 0
		0x00, 0x00, 0x80, 0xd2, // mov x0, 0
		0xa8, 0x0b, 0x80, 0xd2, // mov x8, 93 (exit)
		0x01, 0x00, 0x00, 0xd4, // svc 0
		0, 0, 0, 0, // length
	}},
}

// printer makes a Linux program that prints text. It needs neither a shell nor a C library, so it runs in
// every image, also in one that holds nothing else.
func printer(text string) ([]byte, error) {
	target, ok := printerCode[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("no printer for %s", runtime.GOARCH)
	}
	code := bytes.Clone(target.code)
	binary.LittleEndian.PutUint32(code[target.lengthAt:], uint32(len(text)))

	const headers = 64 + 56 // sizes of an ELF64 file header and one program header
	size := uint64(headers + len(code) + len(text))
	var out bytes.Buffer
	for _, part := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{
				0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT),
			},
			Type: uint16(elf.ET_EXEC), Machine: uint16(target.machine), Version: uint32(elf.EV_CURRENT),
			Entry: printerBase + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64,
		},
		elf.Prog64{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
			Vaddr: printerBase, Paddr: printerBase, Filesz: size, Memsz: size, Align: 0x1000,
		},
		code, []byte(text),
	} {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			return nil, fmt.Errorf("writing a program: %w", err)
		}
	}
	return out.Bytes(), nil
}
