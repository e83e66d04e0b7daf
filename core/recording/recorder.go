package recording

import (
	"encoding/binary"
	"hash/maphash"
	"math"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

const (
	mostGroups     = 1 << 16 // numbers of cgroups
	mostLives      = 1 << 17 // processes and sockets in a generation
	mostAttributes = math.MaxUint16
	rootCgroup     = 1 // the id of the default hierarchy's root
)

// Recorder writes events of the kernel and leaves out of them all that could be read.
// It gives numbers to what it meets; the tables in which they stand are never written,
// their hashes have a key that is drawn for the recording, and they are bounded: of more
// than 65,536 cgroups the rest share the last number, of more than 65,535 paths and
// peers the rest share numbers by chance, and a process or socket of which nothing was
// seen while 131,072 others came gets a new number. It is for one goroutine.
type Recorder struct {
	w          *Writer
	start      uint64
	key        maphash.Seed
	groups     map[uint64]uint32
	attributes map[uint64]uint16
	young, old map[uint64]life // by their own number, of the kernel
	lives      uint64
	scratch    [24]byte
}

// life is a process or socket.
type life struct {
	number    uint64
	attribute uint16 // of a socket, for its close
}

// NewRecorder writes to w what happens from startNS on, by the clock of events.
func NewRecorder(w *Writer, startNS uint64) *Recorder {
	return &Recorder{
		w: w, start: startNS, key: maphash.MakeSeed(),
		groups: map[uint64]uint32{}, attributes: map[uint64]uint16{}, young: map[uint64]life{}, old: map[uint64]life{},
	}
}

// Add writes an event, or leaves it out where no sampler decides about its kind. One
// from before the start is at the start.
func (r *Recorder) Add(e *event.Event) error {
	if !written(e.Kind) {
		return nil
	}
	out := Event{Kind: e.Kind, Priority: e.Priority, Group: r.group(e.CgroupID)}
	if e.TimeNS > r.start {
		out.At = int64(e.TimeNS - r.start)
	}
	l := r.life(e)
	out.Lifecycle, out.Attribute = l.number, l.attribute
	if e.Kind != event.NetworkClose || l.attribute == 0 {
		out.Attribute = r.attribute(e)
	}
	if e.Random != 0 && (e.Kind == event.NetworkConnect || e.Kind == event.NetworkAccept) {
		r.young[e.Random] = life{l.number, out.Attribute}
	}
	return r.w.Write(out)
}

func (r *Recorder) group(cgroup uint64) uint32 {
	if cgroup <= rootCgroup {
		return 0
	}
	n, ok := r.groups[cgroup]
	switch {
	case ok:
		return n
	case len(r.groups) == mostGroups:
		return mostGroups
	}
	n = uint32(len(r.groups) + 1)
	r.groups[cgroup] = n
	return n
}

// life finds whose event it is, or begins one, and ends it with its last event.
func (r *Recorder) life(e *event.Event) life {
	if e.Random == 0 {
		return life{}
	}
	l, ok := r.young[e.Random]
	if !ok {
		l, ok = r.old[e.Random]
		delete(r.old, e.Random)
	}
	if !ok {
		r.lives++
		l = life{number: r.lives}
	}
	if e.Kind == event.ProcessExit || e.Kind == event.NetworkClose {
		delete(r.young, e.Random)
		return l
	}
	if len(r.young) >= mostLives {
		r.old = r.young
		r.young = map[uint64]life{}
	}
	r.young[e.Random] = l
	return l
}

// attribute numbers what an event is about. Of a connection that is the peer and the
// port of its service: a client's own port is another each time.
func (r *Recorder) attribute(e *event.Event) uint16 {
	switch e.Kind {
	case event.ProcessExec:
		return r.number(e.Exec.Path)
	case event.FileOpen:
		return r.number(e.Open.Path)
	case event.NetworkConnect, event.NetworkConnectFailed:
		return r.peer(e.Network.PeerAddr, e.Network.PeerPort)
	case event.NetworkAccept:
		return r.peer(e.Network.PeerAddr, e.Network.LocalPort)
	case event.NetworkListen:
		return r.peer(nil, e.Network.LocalPort)
	case event.NetworkClose: // of a socket that is older than the recording
		return r.peer(e.Network.PeerAddr, min(e.Network.LocalPort, e.Network.PeerPort))
	}
	return 0
}

func (r *Recorder) peer(address []byte, port uint16) uint16 {
	b := append(r.scratch[:0], address...)
	return r.number(binary.BigEndian.AppendUint16(b, port))
}

func (r *Recorder) number(of []byte) uint16 {
	h := maphash.Bytes(r.key, of)
	n, ok := r.attributes[h]
	switch {
	case ok:
		return n
	case len(r.attributes) == mostAttributes:
		return 1 + uint16(h%mostAttributes)
	}
	n = uint16(len(r.attributes) + 1)
	r.attributes[h] = n
	return n
}
