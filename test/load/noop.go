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

// pauseCode is the whole program: block SIGTERM and SIGINT, wait for one of them,
// exit_group(0). The set of signals follows the code.
func pauseCode(arch string) (elf.Machine, []byte, error) {
	set := binary.LittleEndian.AppendUint64(nil, 1<<(15-1)|1<<(2-1))
	switch arch {
	case "amd64":
		return elf.EM_X86_64, append([]byte{
			0x31, 0xff, // xor edi, edi
			0x48, 0x8d, 0x35, 0x32, 0x00, 0x00, 0x00, // lea rsi, [set]
			0x31, 0xd2, // xor edx, edx
			0x41, 0xba, 0x08, 0x00, 0x00, 0x00, // mov r10d, 8
			0xb8, 0x0e, 0x00, 0x00, 0x00, // mov eax, 14: rt_sigprocmask
			0x0f, 0x05, // syscall
			0x48, 0x8d, 0x3d, 0x1c, 0x00, 0x00, 0x00, // lea rdi, [set]
			0x31, 0xf6, // xor esi, esi
			0x31, 0xd2, // xor edx, edx
			0x41, 0xba, 0x08, 0x00, 0x00, 0x00, // mov r10d, 8
			0xb8, 0x80, 0x00, 0x00, 0x00, // mov eax, 128: rt_sigtimedwait
			0x0f, 0x05, // syscall
			0x31, 0xff, // xor edi, edi
			0xb8, 0xe7, 0x00, 0x00, 0x00, // mov eax, 231: exit_group
			0x0f, 0x05, // syscall
			0x90, 0x90, // nop
		}, set...), nil
	case "arm64":
		var code []byte
		add := func(words ...uint32) {
			for _, w := range words {
				code = binary.LittleEndian.AppendUint32(code, w)
			}
		}
		mov := func(register, value uint32) uint32 { return 0xd2800000 | value<<5 | register }
		adr := func(register, words uint32) uint32 { return 0x10000000 | words<<5 | register } // forward
		const svc = 0xd4000001
		add(mov(8, 135), mov(0, 0), adr(1, 13), mov(2, 0), mov(3, 8), svc) // rt_sigprocmask
		add(mov(8, 137), adr(0, 8), mov(1, 0), mov(2, 0), mov(3, 8), svc)  // rt_sigtimedwait
		add(mov(8, 94), mov(0, 0), svc)                                    // exit_group
		return elf.EM_AARCH64, append(code, set...), nil
	}
	return 0, nil, fmt.Errorf("no program that pauses is known for %s", arch)
}

// PauseELF returns a static executable like that of [NoopELF] that does nothing until it
// gets SIGTERM or SIGINT, also as the first process of a pid namespace, and then exits
// with status 0.
func PauseELF(arch string) ([]byte, error) {
	machine, code, err := pauseCode(arch)
	if err != nil {
		return nil, err
	}
	return staticELF(machine, code)
}

// NoopELF returns the smallest useful static executable for an architecture as Go names
// it: one segment whose code exits with status 0 by its first system call. It needs no
// compiler, no interpreter and no file but itself, so it is an image's whole content.
func NoopELF(arch string) ([]byte, error) {
	machine, code, err := noopCode(arch)
	if err != nil {
		return nil, err
	}
	return staticELF(machine, code)
}

// staticELF wraps code into an executable of one segment that begins to run at its start.
func staticELF(machine elf.Machine, code []byte) ([]byte, error) {
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
			return nil, fmt.Errorf("write a program: %w", err)
		}
	}
	return b.Bytes(), nil
}
