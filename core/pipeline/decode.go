// Package pipeline takes raw records from the kernel's rings to the exporters:
// decode, attribute, export, on one goroutine and without an allocation for an
// event.
//
// It owns the records of events that wait for their container's metadata; all
// other records belong to the ring and are gone when a call returns. It never
// blocks: neither on the inventory, nor on an exporter, whose queues are bounded
// and counted. Whatever it drops or puts off is in its ledger.
package pipeline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// ErrMalformed is what every record that is none wraps.
var ErrMalformed = errors.New("malformed record")

// Allocated once: a broken producer must not cost an allocation a record.
var (
	errShort     = fmt.Errorf("%w: shorter than its kind", ErrMalformed)
	errKind      = fmt.Errorf("%w: unknown kind", ErrMalformed)
	errPriority  = fmt.Errorf("%w: unknown priority", ErrMalformed)
	errLength    = fmt.Errorf("%w: a length beyond its end", ErrMalformed)
	errThreshold = fmt.Errorf("%w: a threshold that keeps nothing", ErrMalformed)
	errFamily    = fmt.Errorf("%w: unknown address family", ErrMalformed)
)

// Offsets and sizes of bpf/abi.h; a test compares them with the objects' BTF.
const (
	offTime       = 0
	offCgroup     = 8
	offThreshold  = 16
	offRandom     = 24
	offStart      = 32
	offRow        = 40
	offGeneration = 44
	offFlags      = 48
	offKind       = 52
	offPriority   = 54
	offPID        = 56
	offTID        = 60
	offNSPID      = 64
	offNSTID      = 68
	offUID        = 72
	offEUID       = 76
	offPIDNS      = 80
	offMountNS    = 84
	offNetNS      = 88
	offComm       = 92
	commSize      = 16
	offParent     = 108
	headerSize    = 112

	forkSize    = 8
	execSize    = 4
	exitSize    = 16
	networkSize = 80
	openSize    = 16
	cgroupSize  = 8

	afInet  = 2
	afInet6 = 10

	maxPath = 4096 // more than a record can hold
)

var order = binary.LittleEndian // amd64 and arm64

// Decoder turns records into events. The zero Decoder is ready; it is for one
// goroutine.
type Decoder struct {
	path [maxPath]byte
}

// Decode fills e from a record. Slices of e point into record or into the
// decoder, until the next call. An error wraps ErrMalformed, and e is then void.
func (d *Decoder) Decode(record []byte, e *event.Event) error {
	if len(record) < headerSize {
		return errShort
	}
	h := record[:headerSize:headerSize]
	e.Kind = event.Kind(order.Uint16(h[offKind:]))
	e.Priority = event.Priority(h[offPriority])
	if e.Kind >= event.KernelKinds {
		return errKind
	}
	if e.Priority >= event.Priorities {
		return errPriority
	}
	e.Flags = event.Flags(order.Uint32(h[offFlags:]))
	e.TimeNS = order.Uint64(h[offTime:])
	e.CgroupID = order.Uint64(h[offCgroup:])
	if e.Threshold = order.Uint64(h[offThreshold:]); e.Threshold >= 1<<56 {
		return errThreshold
	}
	e.Random = order.Uint64(h[offRandom:])
	e.StartNS = order.Uint64(h[offStart:])
	e.Row = order.Uint32(h[offRow:])
	e.Generation = order.Uint32(h[offGeneration:])
	e.PID = order.Uint32(h[offPID:])
	e.TID = order.Uint32(h[offTID:])
	e.NSPID = order.Uint32(h[offNSPID:])
	e.NSTID = order.Uint32(h[offNSTID:])
	e.UID = order.Uint32(h[offUID:])
	e.EUID = order.Uint32(h[offEUID:])
	e.PIDNS = order.Uint32(h[offPIDNS:])
	e.MountNS = order.Uint32(h[offMountNS:])
	e.NetNS = order.Uint32(h[offNetNS:])
	e.ParentPID = order.Uint32(h[offParent:])
	e.Comm = untilNUL(h[offComm : offComm+commSize])
	return d.body(record[headerSize:], e)
}

func (d *Decoder) body(b []byte, e *event.Event) error {
	switch e.Kind {
	case event.ProcessFork:
		if len(b) < forkSize {
			return errShort
		}
		e.Fork = event.Fork{ParentTID: order.Uint32(b), ParentNSPID: order.Uint32(b[4:])}
	case event.ProcessExec:
		return d.exec(b, e.Flags, &e.Exec)
	case event.ProcessExit:
		if len(b) < exitSize {
			return errShort
		}
		e.Exit = event.Exit{
			DurationNS: order.Uint64(b), Code: order.Uint32(b[8:]), Signal: order.Uint32(b[12:]),
		}
	case event.NetworkConnect, event.NetworkConnectFailed, event.NetworkAccept,
		event.NetworkClose, event.NetworkListen:
		return network(b, &e.Network)
	case event.FileOpen:
		if len(b) < openSize {
			return errShort
		}
		n := int(order.Uint16(b[12:]))
		if len(b) < openSize+n {
			return errLength
		}
		e.Open = event.Open{
			Flags: order.Uint32(b), Result: int32(order.Uint32(b[4:])),
			DirFD: int32(order.Uint32(b[8:])), Path: b[openSize : openSize+n],
		}
	case event.CgroupCreate, event.CgroupRemove:
		if len(b) < cgroupSize {
			return errShort
		}
		n := int(order.Uint16(b[4:]))
		if len(b) < cgroupSize+n {
			return errLength
		}
		e.Cgroup = event.Cgroup{Level: order.Uint32(b), Path: b[cgroupSize : cgroupSize+n]}
	}
	return nil
}

func (d *Decoder) exec(b []byte, flags event.Flags, x *event.Exec) error {
	if len(b) < execSize {
		return errShort
	}
	path, args := int(order.Uint16(b)), int(order.Uint16(b[2:]))
	b = b[execSize:]
	if len(b) < path+args {
		return errLength
	}
	if path+1+len(ellipsis) > len(d.path) {
		return errLength
	}
	x.Path = d.turn(b[:path], flags)
	x.Args = b[path : path+args]
	return nil
}

const ellipsis = "…"

// turn makes a path of names that run from the last to the first, each ended by
// NUL.
func (d *Decoder) turn(names []byte, flags event.Flags) []byte {
	at := len(d.path)
	for len(names) > 0 {
		n := bytes.IndexByte(names, 0)
		if n < 0 {
			n = len(names)
		}
		at -= n
		copy(d.path[at:], names[:n])
		at--
		d.path[at] = '/'
		names = names[min(n+1, len(names)):]
	}
	if at == len(d.path) {
		at--
		d.path[at] = '/'
	}
	switch {
	case flags&event.PathDetached != 0:
		at++
	case flags&event.PathTruncated != 0:
		at -= len(ellipsis)
		copy(d.path[at:], ellipsis)
	}
	return d.path[at:]
}

func network(b []byte, n *event.Network) error {
	if len(b) < networkSize {
		return errShort
	}
	local, peer := b[32:48:48], b[48:64:64]
	switch family := order.Uint16(b[68:]); {
	case family == afInet:
		local, peer = local[:4], peer[:4]
	case family != afInet6:
		return errFamily
	case mapped(local) && mapped(peer): // IPv4 through a socket of IPv6
		local, peer = local[12:], peer[12:]
	}
	*n = event.Network{
		Cookie:     order.Uint64(b),
		DurationNS: order.Uint64(b[8:]),
		Sent:       order.Uint64(b[16:]),
		Received:   order.Uint64(b[24:]),
		LocalAddr:  local,
		PeerAddr:   peer,
		LocalPort:  order.Uint16(b[64:]),
		PeerPort:   order.Uint16(b[66:]),
		Errno:      order.Uint16(b[70:]),
		Backlog:    order.Uint32(b[72:]),
	}
	return nil
}

// mapped tells an IPv4 address in IPv6's clothes.
func mapped(a []byte) bool {
	return order.Uint64(a) == 0 && order.Uint32(a[8:]) == 0xffff0000
}

func untilNUL(b []byte) []byte {
	if n := bytes.IndexByte(b, 0); n >= 0 {
		return b[:n]
	}
	return b
}
