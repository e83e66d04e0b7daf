package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What a reader is doing, as in enum reader_mode of bpf/abi.h.
const (
	readerBusy = iota
	readerTick
	readerIdle
)

const (
	stateBytes = 64 // struct reader_state

	tick     = 20 * time.Millisecond  // how long a record may lie unread
	breath   = time.Millisecond       // for a sink that is congested
	longIdle = 250 * time.Millisecond // between looks without a wake-up
	calm     = 200 * time.Millisecond // without a record, before ticking ends

	// mergeWindow is how long an empty ring can hold the others back.
	mergeWindow = time.Millisecond
)

// readerStates is the map in which programs see what each reader is doing.
type readerStates struct {
	page  []byte
	count int
}

func newReaderStates(m *ebpf.Map, rings, ringBytes int) (readerStates, error) {
	page := os.Getpagesize()
	size := (rings*stateBytes + page - 1) / page * page
	b, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return readerStates{}, fmt.Errorf("map the readers' state: %w", err)
	}
	s := readerStates{page: b, count: rings}
	for i := range rings {
		// An eighth of the ring: woken early enough to never see it full, and
		// seldom enough for a wake-up to cost nothing.
		atomic.StoreUint32((*uint32)(unsafe.Pointer(&b[i*stateBytes+4])), uint32(ringBytes/8))
	}
	s.set(readerIdle)
	return s, nil
}

func (s readerStates) set(mode uint32) {
	for i := range s.count {
		atomic.StoreUint32((*uint32)(unsafe.Pointer(&s.page[i*stateBytes])), mode)
	}
}

func (s readerStates) close() error {
	if s.page == nil {
		return nil
	}
	return unix.Munmap(s.page)
}

// Sink takes what Read reads.
type Sink interface {
	// Record takes one raw record, which is valid only during the call.
	Record(record []byte)
	// Drained is called when the rings are empty, and at least every `again`
	// that it returned last; 0: only when there were records.
	Drained() (again time.Duration)
	// Congested tells that what was taken is not getting on as fast, and is
	// better left in the ring for a moment: there it is smallest. It is asked
	// often and must be cheap. A ring that is half full is read all the same.
	Congested() bool
}

// Read drains the rings into sink until ctx is done, and then once more, so that
// after Detach nothing is left. Records of several rings are merged by time, so
// far as they come within a millisecond. While there is work it looks every 20 ms
// or when a ring is an eighth full; when there is none it sleeps until a program
// wakes it.
func (k *Kernel) Read(ctx context.Context, sink Sink) (err error) {
	alarm, err := newAlarm(k.ringFDs())
	if err != nil {
		return err
	}
	k.alarm.Store(alarm)
	defer func() {
		k.alarm.Store(nil)
		err = errors.Join(err, alarm.close())
	}()
	stopped := make(chan error, 1)
	unhook := context.AfterFunc(ctx, func() { stopped <- alarm.stop() })
	defer func() {
		if !unhook() {
			err = errors.Join(err, <-stopped)
		}
	}()

	last := time.Now()
	idle := false // the mode has been idle for a tick, with nothing to read
	for ctx.Err() == nil {
		if !idle || !k.empty() {
			k.mode(readerBusy)
			idle = false
			if k.drain(sink) > 0 {
				last = time.Now()
			}
		}
		again := sink.Drained()
		wait := tick
		switch {
		case sink.Congested():
			wait = breath // and nobody need wake the reader
		case time.Since(last) <= calm:
			k.mode(readerTick)
		case !idle:
			// A program that read the mode before it was set wakes nobody: one
			// more tick, after which its record is there to be seen.
			k.mode(readerIdle)
			idle = true
		default:
			k.mode(readerIdle) // a wake-up whose record was lost has changed it
			wait = longIdle
		}
		if again > 0 {
			wait = min(wait, again)
		}
		if err := alarm.wait(wait); err != nil {
			return err
		}
	}
	k.mode(readerBusy)
	for !k.empty() && k.drain(sink) > 0 {
		if sink.Congested() {
			time.Sleep(breath)
		}
	}
	sink.Drained()
	return nil
}

// mode says what the reader is doing, to the programs and to Wake. That it ticks it says
// after it has called Drained and before it waits for a tick.
func (k *Kernel) mode(mode uint32) {
	k.readers.set(mode)
	k.ticking.Store(mode == readerTick)
}

// Wake has Drained called within a tick (20 ms), where Read runs: at once where the
// reader would else sleep for longer. It never waits, and may be called by any goroutine.
func (k *Kernel) Wake() {
	if a := k.alarm.Load(); a != nil && !k.ticking.Load() {
		// It fails only when it is closed, after which nobody waits.
		_ = a.wake()
	}
}

func (k *Kernel) ringFDs() []int {
	out := make([]int, 0, len(k.rings)+1)
	for _, r := range k.rings {
		out = append(out, r.m.FD())
	}
	return out
}

func (k *Kernel) filling() bool {
	for _, r := range k.rings {
		if r.filling() {
			return true
		}
	}
	return false
}

func (k *Kernel) empty() bool {
	for _, r := range k.rings {
		if !r.empty() {
			return false
		}
	}
	return true
}

// drain reads until the rings are empty, or would never be.
func (k *Kernel) drain(sink Sink) (n int) {
	if len(k.rings) == 1 {
		return k.rings[0].drain(sink)
	}
	return k.merge(sink)
}

// releaseEvery is how many bytes are read before their room is given back: often
// enough for the programs, seldom enough for the cache line that both write.
const releaseEvery = 64 << 10

func (r *ring) drain(sink Sink) (n int) {
	// One round reads at most what the ring can hold, so that Drained is called
	// under any load.
	most := r.at + r.mask + 1
	released := r.at
	for r.at < most {
		end := r.written()
		before := n
		for {
			record, length, ok := r.peek(end)
			if !ok {
				break
			}
			sink.Record(record)
			r.at += length
			n++
			if r.at-released >= releaseEvery {
				r.release()
				released = r.at
				if sink.Congested() && !r.filling() {
					return n
				}
			}
		}
		if n == before {
			break
		}
	}
	r.release()
	return n
}

// merge reads the rings' records in the order of their times. A ring that is
// empty holds the others back for mergeWindow at most.
func (k *Kernel) merge(sink Sink) (n int) {
	var most int
	for _, r := range k.rings {
		most += len(r.data) / 64
	}
	for n < most {
		if n%256 == 255 && sink.Congested() && !k.filling() {
			break
		}
		var first *ring
		var oldest, length uint64
		var record []byte
		var lacking bool
		for _, r := range k.rings {
			rec, l, ok := r.peek(r.written())
			if !ok {
				lacking = true
				continue
			}
			if t := timeOf(rec); first == nil || t < oldest {
				first, oldest, record, length = r, t, rec, l
			}
		}
		if first == nil {
			break
		}
		if lacking && int64(Monotonic()-oldest) < int64(mergeWindow) {
			time.Sleep(mergeWindow) // what the empty ring may still get is there then
			continue
		}
		sink.Record(record)
		first.at += length
		n++
		if n%256 == 0 {
			for _, r := range k.rings {
				r.release()
			}
		}
	}
	for _, r := range k.rings {
		r.release()
	}
	return n
}

// InRing counts the records that wait to be read.
func (k *Kernel) InRing() (n uint64) {
	for _, r := range k.rings {
		n += r.waiting()
	}
	return n
}

// RingFill is the share in use of the fullest ring.
func (k *Kernel) RingFill() (share float64) {
	for _, r := range k.rings {
		share = max(share, r.fill())
	}
	return share
}
