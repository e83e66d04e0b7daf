package pipeline

import (
	"encoding/binary"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// header makes the header of a record as the programs write it.
func header(kind event.Kind, priority event.Priority, cgroup uint64) []byte {
	b := make([]byte, headerSize)
	binary.LittleEndian.PutUint64(b[offTime:], 1_000_000)
	binary.LittleEndian.PutUint64(b[offCgroup:], cgroup)
	binary.LittleEndian.PutUint64(b[offThreshold:], 1<<55)
	binary.LittleEndian.PutUint32(b[offRow:], 3)
	binary.LittleEndian.PutUint32(b[offGeneration:], 4)
	binary.LittleEndian.PutUint16(b[offKind:], uint16(kind))
	b[offPriority] = byte(priority)
	binary.LittleEndian.PutUint64(b[offRandom:], 1<<55+5)
	binary.LittleEndian.PutUint64(b[offStart:], 999)
	binary.LittleEndian.PutUint32(b[offFlags:], uint32(event.ArgsTruncated))
	for i, off := range []int{offPID, offTID, offNSPID, offNSTID, offUID, offEUID, offPIDNS, offMountNS, offNetNS, offParent} {
		binary.LittleEndian.PutUint32(b[off:], uint32(100+i))
	}
	copy(b[offComm:], "a-comm")
	return b
}

func execRecord(cgroup uint64, names, args string) []byte {
	b := header(event.ProcessExec, event.Info, cgroup)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(names)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(args)))
	return append(append(b, names...), args...)
}

func exitRecord(cgroup uint64) []byte {
	b := header(event.ProcessExit, event.Error, cgroup)
	b = binary.LittleEndian.AppendUint64(b, 5_000_000)
	b = binary.LittleEndian.AppendUint32(b, 3)
	return binary.LittleEndian.AppendUint32(b, 9)
}

func forkRecord(cgroup uint64) []byte {
	b := header(event.ProcessFork, event.Debug, cgroup)
	b = binary.LittleEndian.AppendUint32(b, 11)
	return binary.LittleEndian.AppendUint32(b, 12)
}

func networkRecord(family uint16) []byte {
	b := header(event.NetworkClose, event.Info, 1)
	for _, v := range []uint64{77, 42, 1000, 2000} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	addresses := make([]byte, 32)
	copy(addresses, []byte{10, 0, 0, 1})
	copy(addresses[16:], []byte{10, 0, 0, 2})
	b = append(b, addresses...)
	for _, v := range []uint16{80, 4000, family, 111} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, 128)
	return binary.LittleEndian.AppendUint32(b, 0)
}

func openRecord(cgroup uint64, path string) []byte {
	b := header(event.FileOpen, event.Debug, cgroup)
	b = binary.LittleEndian.AppendUint32(b, 0o100)
	b = binary.LittleEndian.AppendUint32(b, 0xfffffffe)
	b = binary.LittleEndian.AppendUint32(b, 0xffffff9c)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(path)))
	b = binary.LittleEndian.AppendUint16(b, 0)
	return append(b, path...)
}

func cgroupRecord(kind event.Kind, cgroup uint64, path string) []byte {
	b := header(kind, event.Critical, cgroup)
	b = binary.LittleEndian.AppendUint32(b, 2)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(path)))
	b = binary.LittleEndian.AppendUint16(b, 0)
	return append(b, path...)
}
