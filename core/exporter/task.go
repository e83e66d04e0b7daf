package exporter

import (
	"strconv"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// task is all that an event tells of the task it is of.
type task struct {
	pid, tid, vpid, parent, uid, euid, pidns, mntns, netns uint32

	comm [16]byte
	n    uint8 // bytes of comm
}

// taskText is how a task was written last. A task rarely makes one event only, and
// its ten numbers cost a third of a short line.
type taskText struct {
	task task
	n    int
	text [256]byte
}

// appendTask writes the part of "process" that all kinds have, and leaves the
// object open.
func (x *Encoder) appendTask(b []byte, e *event.Event) []byte {
	t := task{
		e.PID, e.TID, e.NSPID, e.ParentPID, e.UID, e.EUID, e.PIDNS, e.MountNS, e.NetNS,
		[16]byte{}, uint8(len(e.Comm)),
	}
	copy(t.comm[:], e.Comm)
	last := &x.tasks[e.TID%uint32(len(x.tasks))]
	if last.n > 0 && last.task == t {
		return append(b, last.text[:last.n]...)
	}
	start := len(b)
	b = formatTask(b, e)
	if n := len(b) - start; n <= len(last.text) {
		last.task, last.n = t, n
		copy(last.text[:], b[start:])
	}
	return b
}

func formatTask(b []byte, e *event.Event) []byte {
	b = append(b, `,"process":{"pid":`...)
	b = strconv.AppendUint(b, uint64(e.PID), 10)
	if e.TID != e.PID {
		b = append(b, `,"thread":{"id":`...)
		b = strconv.AppendUint(b, uint64(e.TID), 10)
		b = append(b, '}')
	}
	if e.ParentPID != 0 {
		b = append(b, `,"parent_pid":`...)
		b = strconv.AppendUint(b, uint64(e.ParentPID), 10)
	}
	if e.NSPID != e.PID {
		b = append(b, `,"vpid":`...)
		b = strconv.AppendUint(b, uint64(e.NSPID), 10)
	}
	b = append(b, `,"comm":`...)
	b = AppendString(b, e.Comm)
	b = append(b, `,"user":{"id":`...)
	b = strconv.AppendUint(b, uint64(e.UID), 10)
	if e.EUID != e.UID {
		b = append(b, `,"effective_id":`...)
		b = strconv.AppendUint(b, uint64(e.EUID), 10)
	}
	b = append(b, `},"namespace":{"pid":`...)
	b = strconv.AppendUint(b, uint64(e.PIDNS), 10)
	b = append(b, `,"mnt":`...)
	b = strconv.AppendUint(b, uint64(e.MountNS), 10)
	b = append(b, `,"net":`...)
	b = strconv.AppendUint(b, uint64(e.NetNS), 10)
	b = append(b, '}')
	return b
}
