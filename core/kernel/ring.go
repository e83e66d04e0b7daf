package kernel

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	ringBusy    = 1 << 31 // the record is being written
	ringDiscard = 1 << 30
	ringHeader  = 8
	maxRecord   = 8 << 10 // more than any probe writes
)

// ring reads one BPF ring buffer in place. The kernel maps the data twice in a
// row so that no record is broken; here it is mapped once, which halves what
// counts as the daemon's memory, and a record that wraps is put together in
// scratch memory.
type ring struct {
	m        *ebpf.Map
	consumer []byte // one page, ours to write
	produced []byte // one page of positions, then the data
	data     []byte
	mask     uint64
	at       uint64 // our position; published by release
	scratch  [maxRecord]byte
}

func newRing(spec *ebpf.MapSpec) (*ring, error) {
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, err
	}
	r := &ring{m: m, mask: uint64(m.MaxEntries()) - 1}
	page := os.Getpagesize()
	if r.consumer, err = unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		m.Close()
		return nil, fmt.Errorf("map the consumer's page: %w", err)
	}
	size := page + int(m.MaxEntries())
	if r.produced, err = unix.Mmap(m.FD(), int64(page), size, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		r.close()
		return nil, fmt.Errorf("map the data: %w", err)
	}
	r.data = r.produced[page:]
	return r, nil
}

func (r *ring) close() error {
	if r.consumer != nil {
		if err := unix.Munmap(r.consumer); err != nil {
			return err
		}
	}
	if r.produced != nil {
		if err := unix.Munmap(r.produced); err != nil {
			return err
		}
	}
	r.consumer, r.produced = nil, nil
	return r.m.Close()
}

func position(page []byte) *uint64 { return (*uint64)(unsafe.Pointer(&page[0])) }

// written is the position up to which room has been taken for records.
func (r *ring) written() uint64 { return atomic.LoadUint64(position(r.produced)) }

// empty tells that no record waits, not even one that is being written.
func (r *ring) empty() bool { return r.at == r.written() }

// filling tells that the ring is half full.
func (r *ring) filling() bool { return r.written()-r.at > r.mask/2 }

// fill is the share in use. Safe at any time.
func (r *ring) fill() float64 {
	read := atomic.LoadUint64(position(r.consumer)) // before what was written: never negative
	return float64(r.written()-read) / float64(r.mask+1)
}

// peek gives the record at the reader's position and its length in the ring, or
// ok = false when there is none yet. The record is valid until release.
func (r *ring) peek(end uint64) (record []byte, length uint64, ok bool) {
	for r.at < end {
		head := r.at & r.mask
		word := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.data[head])))
		if word&ringBusy != 0 {
			return nil, 0, false
		}
		n := uint64(word &^ ringDiscard)
		length = (n + ringHeader + 7) &^ 7
		if word&ringDiscard != 0 {
			r.at += length
			continue
		}
		first := (head + ringHeader) & r.mask
		if first+n <= uint64(len(r.data)) {
			return r.data[first : first+n : first+n], length, true
		}
		if n > maxRecord {
			// Never written by a probe; handed on as it stands, cut, so that it
			// is counted as malformed.
			n = maxRecord
		}
		part := copy(r.scratch[:n], r.data[first:])
		copy(r.scratch[part:n], r.data)
		return r.scratch[:n:n], length, true
	}
	return nil, 0, false
}

// release gives the room up to the reader's position back to the programs.
func (r *ring) release() { atomic.StoreUint64(position(r.consumer), r.at) }

// waiting counts the records in the ring by walking it. It may be called while
// the ring is read and written: a walk during which the reader moved is done
// again, and after some tries the last answer stands.
func (r *ring) waiting() (n uint64) {
	for range 8 {
		start := atomic.LoadUint64(position(r.consumer))
		end := r.written()
		n = 0
		for at := start; at < end; {
			word := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.data[at&r.mask])))
			length := (uint64(word&^(ringBusy|ringDiscard)) + ringHeader + 7) &^ 7
			if word&ringDiscard == 0 {
				n++
			}
			at += length
		}
		if atomic.LoadUint64(position(r.consumer)) == start {
			break
		}
	}
	return n
}

// timeOf is the time in a record's header, the first field.
func timeOf(record []byte) uint64 {
	if len(record) < 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(record)
}
