package load

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
)

// noopCode is the whole program: exit_group(0).
func noopCode(arch string) (elf.Machine, []byte, error) {
	switch arch {
	case "amd64":
		return elf.EM_X86_64, []byte{
			0x31, 0xff, // xor edi, edi
			0xb8, 0xe7, 0x00, 0x00, 0x00, // mov eax, 231
			0x0f, 0x05, // syscall
		}, nil
	case "arm64":
		return elf.EM_AARCH64, []byte{
			0x00, 0x00, 0x80, 0xd2, // mov x0, #0
			0xc8, 0x0b, 0x80, 0xd2, // mov x8, #94
			0x01, 0x00, 0x00, 0xd4, // svc #0
		}, nil
	}
	return 0, nil, fmt.Errorf("no no-op program is known for %s", arch)
}

// NoopELF returns the smallest useful static executable for an architecture as Go names
// it: one segment whose code exits with status 0 by its first system call. It needs no
// compiler, no interpreter and no file but itself, so it is an image's whole content.
func NoopELF(arch string) ([]byte, error) {
	machine, code, err := noopCode(arch)
	if err != nil {
		return nil, err
	}
	const base = 0x400000
	headers := uint64(binary.Size(elf.Header64{}) + binary.Size(elf.Prog64{}))
	size := headers + uint64(len(code))
	header := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F',
			byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:      uint16(elf.ET_EXEC),
		Machine:   uint16(machine),
		Version:   uint32(elf.EV_CURRENT),
		Entry:     base + headers,
		Phoff:     uint64(binary.Size(elf.Header64{})),
		Ehsize:    uint16(binary.Size(elf.Header64{})),
		Phentsize: uint16(binary.Size(elf.Prog64{})),
		Phnum:     1,
	}
	segment := elf.Prog64{
		Type:   uint32(elf.PT_LOAD),
		Flags:  uint32(elf.PF_R | elf.PF_X),
		Vaddr:  base,
		Paddr:  base,
		Filesz: size,
		Memsz:  size,
		Align:  0x10000, // the largest page of either architecture
	}
	var b bytes.Buffer
	for _, part := range []any{header, segment, code} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			return nil, fmt.Errorf("write a no-op program: %w", err)
		}
	}
	return b.Bytes(), nil
}
