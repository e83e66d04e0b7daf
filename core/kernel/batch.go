package kernel

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// batchAttr is the kernel's bpf_attr of the batch commands.
type batchAttr struct {
	in, out, keys, values uint64
	count, fd             uint32
	elemFlags, flags      uint64
}

const (
	batchLookup = 24 // BPF_MAP_LOOKUP_BATCH
	batchUpdate = 26 // BPF_MAP_UPDATE_BATCH
)

// batchRows reads or writes the first rows of a table, in all CPUs: rows has cpus of them
// for each index. The library does the same with each row by itself, which takes five
// times as long; a table of 4,000 rows is written four times a second.
func batchRows(command uintptr, m *ebpf.Map, rows []policyRow, cpus int) error {
	n := len(rows) / cpus
	if n == 0 {
		return nil
	}
	keys := make([]uint32, n)
	for i := range keys {
		keys[i] = uint32(i)
	}
	var next uint32
	attr := batchAttr{
		out:  uint64(uintptr(unsafe.Pointer(&next))),
		keys: uint64(uintptr(unsafe.Pointer(&keys[0]))), values: uint64(uintptr(unsafe.Pointer(&rows[0]))),
		count: uint32(n), fd: uint32(m.FD()),
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(keys)
	runtime.KeepAlive(rows)
	runtime.KeepAlive(&next)
	switch {
	case errno == unix.EINVAL || errno == unix.ENOTSUP || errno == enotsupp:
		return ebpf.ErrNotSupported // before 5.13
	case errno != 0 && !(errno == unix.ENOENT && command == batchLookup): // at the end
		return errno
	case int(attr.count) != n:
		return fmt.Errorf("%d of %d rows", attr.count, n)
	}
	return nil
}

// enotsupp is the kernel's own number, which it lets out here.
const enotsupp = unix.Errno(524)

// writeRows fills the first rows of a table that no program uses.
func writeRows(m *ebpf.Map, rows []policyRow, cpus int) error {
	err := batchRows(batchUpdate, m, rows, cpus)
	if !errors.Is(err, ebpf.ErrNotSupported) {
		return err
	}
	for i := 0; i < len(rows); i += cpus {
		if err := m.Put(uint32(i/cpus), rows[i:i+cpus]); err != nil {
			return err
		}
	}
	return nil
}

// readRows reads the first rows of a table.
func readRows(m *ebpf.Map, rows []policyRow, cpus int) error {
	err := batchRows(batchLookup, m, rows, cpus)
	if !errors.Is(err, ebpf.ErrNotSupported) {
		return err
	}
	for i := 0; i < len(rows); i += cpus {
		var perCPU []policyRow
		if err := m.Lookup(uint32(i/cpus), &perCPU); err != nil {
			return err
		}
		copy(rows[i:], perCPU)
	}
	return nil
}
