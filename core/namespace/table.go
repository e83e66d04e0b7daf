package namespace

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
)

// owner is the one container that is known to be in a pid namespace. Its times are
// those of the events' clock.
type owner struct {
	handle inventory.Handle
	// seen is when the namespace's first process was there, as far as is known.
	seen atomic.Uint64
	// ended is when that process exited, and with it the namespace; 0: it is there.
	// The inode may be given to the next namespace at once, whose processes are
	// younger.
	ended atomic.Uint64
}

// end notes that the namespace is gone, if that was not told earlier.
func (o *owner) end(at uint64) { o.ended.CompareAndSwap(0, at) }

// table finds the owner of a pid namespace by its inode. Reading takes no lock.
// Writing copies one shard; it is for one goroutine at a time.
type table [256]struct {
	writing sync.Mutex
	owners  atomic.Pointer[map[uint32]*owner]
}

func (t *table) init() {
	none := map[uint32]*owner{} // never written to: writers copy
	for n := range t {
		t[n].owners.Store(&none)
	}
}

func (t *table) get(inode uint32) *owner {
	return (*t[inode%uint32(len(t))].owners.Load())[inode]
}

func (t *table) set(inode uint32, o *owner) {
	t.change(inode, func(owners map[uint32]*owner) { owners[inode] = o })
}

func (t *table) drop(inode uint32) {
	if t.get(inode) != nil {
		t.change(inode, func(owners map[uint32]*owner) { delete(owners, inode) })
	}
}

// dropIf drops an owner that has not been succeeded.
func (t *table) dropIf(inode uint32, o *owner) {
	if t.get(inode) == o {
		t.drop(inode)
	}
}

func (t *table) change(inode uint32, f func(map[uint32]*owner)) {
	shard := &t[inode%uint32(len(t))]
	shard.writing.Lock()
	defer shard.writing.Unlock()
	next := maps.Clone(*shard.owners.Load())
	f(next)
	shard.owners.Store(&next)
}

// ByPID gives the container that an event belongs to by the pid namespace of its
// process, for events that no cgroup gives to anybody: nil when it is the host's or
// not known, and when several containers share it. It takes no lock and allocates
// nothing. Events are to be given in their order: after the exit of a namespace's
// first process only those of processes that are older than that are its own.
func (n *Namespaces) ByPID(e *event.Event) *inventory.Workload {
	if uint64(e.PIDNS) == n.options.Host.Set[PID] {
		return nil
	}
	o := n.table.get(e.PIDNS)
	if o == nil {
		return nil
	}
	if ended := o.ended.Load(); ended != 0 {
		if e.StartNS == 0 || e.StartNS > ended {
			return nil
		}
	} else if e.Kind == event.ProcessExit && e.NSPID == 1 {
		o.end(e.TimeNS)
	}
	return o.handle.Workload()
}
