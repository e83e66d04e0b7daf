package kernel

import (
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Budget of what is kept.
type Budget struct {
	// EventsPerSecond over all classes; 0: no bound.
	EventsPerSecond float64
	// Reserve is the part of it, 0 to 1, up to which critical events and the first
	// of a cgroup are kept for sure. 0: DefaultReserve.
	Reserve float64
	// Raise lets probabilities be raised above the policy's, up to 128 times, while the
	// budget is not used.
	Raise bool
}

// DefaultReserve is the part of the budget that is for critical and first events.
const DefaultReserve = 0.5

// valveWords is struct valve of bpf/abi.h.
type valveWords struct {
	PaidNS, ReservePaidNS, NowNS, Tick uint64
	_                                  [4]uint64
	EventCost, ReserveCost, Quantum    uint64
	Raise, Filters, Sharers            uint64
	_                                  [2]uint64
}

// valve is the budget's place in the kernel.
type valve struct {
	page  []byte
	words *valveWords
}

func newValve(m *ebpf.Map) (*valve, error) {
	page, err := unix.Mmap(m.FD(), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the valve: %w", err)
	}
	v := &valve{page: page, words: (*valveWords)(unsafe.Pointer(&page[0]))}
	v.set(Budget{})
	return v, nil
}

// SetBudget holds from the next event on.
func (k *Kernel) SetBudget(b Budget) { k.valve.set(b) }

// SetSharers says how many cgroups share the budget: one that uses less than an equal
// part is thinned out less than the others when it is overspent.
func (k *Kernel) SetSharers(n int) { k.valve.share(n) }

func (v *valve) share(n int) { atomic.StoreUint64(&v.words.Sharers, uint64(min(max(n, 0), 1<<16))) }

func (v *valve) set(b Budget) {
	const (
		unit  = 256e9 // of costs in a second: 1 << COST_SHIFT a nanosecond
		flush = 25e-6 // seconds of budget that are paid for together
		least = 54    // of the quantum, as powers of two in 2^-56 events: a quarter, ...
		most  = 63    // ... and what a row's account has room for
	)
	if b.Reserve <= 0 {
		b.Reserve = DefaultReserve
	}
	var event, reserve, raise uint64
	quantum := least
	if b.EventsPerSecond > 0 {
		event = uint64(math.Ceil(min(unit/b.EventsPerSecond, 1<<44)))
		reserve = uint64(math.Ceil(min(unit/(b.EventsPerSecond*min(b.Reserve, 1)), 1<<44)))
		quantum = min(max(56+int(math.Log2(b.EventsPerSecond*flush)), least), most)
	}
	if b.Raise {
		raise = 112
	}
	atomic.StoreUint64(&v.words.Quantum, 1<<quantum)
	atomic.StoreUint64(&v.words.ReserveCost, reserve)
	atomic.StoreUint64(&v.words.Raise, raise)
	atomic.StoreUint64(&v.words.EventCost, event)
}

// quantum is how much of a row's shares is paid for together: a power of two.
func (v *valve) quantum() uint64 { return atomic.LoadUint64(&v.words.Quantum) }

func (v *valve) close() error {
	if v == nil {
		return nil
	}
	return unix.Munmap(v.page)
}
