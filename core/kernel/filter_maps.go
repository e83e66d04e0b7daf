package kernel

import (
	"errors"
	"fmt"
	"structs"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// filterSet is struct filters.
type filterSet struct {
	_                       structs.HostLayout
	Kinds                   [32]uint64
	Priorities              [8]uint64
	Without                 [asks]uint64
	Drop, Keep, Only, Ranks uint64
	Asks                    uint64
	Rank                    [64]uint8
}

// filterValue is struct filter_value.
type filterValue struct {
	_               structs.HostLayout
	Filters         uint64
	Quick, Reserved uint32
}

type filterPrefix struct {
	_       structs.HostLayout
	Bits    uint32
	Address [16]byte
}

// filterMaps holds the set in force.
type filterMaps struct {
	sets, hits *ebpf.Map
	valve      *valve
	states     *cgroupStates

	mu      sync.Mutex
	upper   bool // the set in force has the upper half of the words
	now     Filters
	comms   values[[16]byte]
	numbers values[Number]
	peers   values[filterPrefix]
	used    [2]int // quick numbers that a half has counted with
	cpus    int
}

func newFilterMaps(m map[string]*ebpf.Map, cpus int, v *valve, s *cgroupStates) *filterMaps {
	return &filterMaps{
		sets: m["filters"], hits: m["filter_hits"], valve: v, states: s, cpus: cpus,
		comms:   values[[16]byte]{m: m["filter_comms"], most: maxValues},
		numbers: values[Number]{m: m["filter_numbers"], most: 2 * maxValues},
		peers:   values[filterPrefix]{m: m["filter_peers"], most: maxValues},
	}
}

// values are those that filters name, of one sort, as they are in the kernel.
type values[K comparable] struct {
	m    *ebpf.Map
	most int
	now  map[K]filterValue
}

// put brings the map to what is wanted: old bits stay beside the new ones when both is
// set. now is what is there, after an error too.
func (v *values[K]) put(next map[K]filterValue, both bool) error {
	if len(next) > v.most {
		return fmt.Errorf("%d values, of which there is room for %d", len(next), v.most)
	}
	if v.now == nil {
		v.now = map[K]filterValue{}
	}
	for key := range v.now {
		if _, still := next[key]; still || both {
			continue
		}
		if err := v.m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("take a filter's value out: %w", err)
		}
		delete(v.now, key)
	}
	for key, value := range next {
		before := v.now[key]
		if both {
			value.Filters |= before.Filters
			if value.Quick == 0 {
				value.Quick = before.Quick
			}
		}
		if before == value {
			continue
		}
		if err := v.m.Put(key, value); err != nil {
			return fmt.Errorf("name a filter's value: %w", err)
		}
		v.now[key] = value
	}
	return nil
}

// Hits are how many events each filter of a set has filtered, in its order.
type Hits struct{ Filters, Quick []uint64 }

// SetFilters puts a set into force, all at once: every event is filtered by the old one
// or by the new one. It gives what the old one filtered in the end.
func (k *Kernel) SetFilters(next Filters) (ended Hits, err error) {
	if ended, err = k.filters.set(next, k.policy.settle); err != nil {
		return ended, fmt.Errorf("set the filters: %w", err)
	}
	return ended, nil
}

func (f *filterMaps) set(next Filters, settle func() error) (ended Hits, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(next.Filters) > MaxFilters || len(next.Quick) > MaxQuick {
		return ended, fmt.Errorf("%d filters and %d by one value: there is room for %d and %d", len(next.Filters), len(next.Quick), MaxFilters, MaxQuick)
	}
	c := compileFilters(next, !f.upper)
	if err := f.forget(!f.upper); err != nil {
		return ended, err
	}
	if err := f.put(c, next.Cgroups, true); err != nil {
		return ended, errors.Join(err, f.takeBack(next))
	}
	place := uint64(half(!f.upper))
	if err := f.sets.Put(uint32(place), &c.set); err != nil {
		return ended, err
	}
	if len(next.Filters)+len(next.Quick) == 0 {
		atomic.StoreUint64(&f.valve.words.Filters, 0)
	} else {
		atomic.StoreUint64(&f.valve.words.Filters, place+1)
	}
	// From here on the new set is in force, whatever goes wrong.
	before, was := f.now, f.upper
	err = settle()
	ended, more := f.read(was, before)
	err = errors.Join(err, more, f.put(c, next.Cgroups, false))
	f.now, f.upper = next, !was
	f.used[half(f.upper)] = len(next.Quick)
	return ended, err
}

// takeBack takes out what there is already of a set that did not come into force: a quick
// filter's value would match by itself, and a later set has the same bits.
func (f *filterMaps) takeBack(failed Filters) error {
	errs := []error{f.put(compileFilters(f.now, f.upper), f.now.Cgroups, false)}
	for id := range failed.Cgroups {
		if _, still := f.now.Cgroups[id]; !still {
			errs = append(errs, f.putCgroup(id, 0))
		}
	}
	return errors.Join(errs...)
}

// half is 0 for the lower half and 1 for the upper one.
func half(upper bool) int {
	if upper {
		return 1
	}
	return 0
}

// put writes the values of a set; both: beside those in force.
func (f *filterMaps) put(c *compiled, cgroups map[uint64]uint32, both bool) error {
	if err := errors.Join(f.comms.put(c.comms, both), f.numbers.put(c.numbers, both), f.peers.put(c.peers, both)); err != nil {
		return err
	}
	for id := range f.now.Cgroups {
		if _, still := cgroups[id]; !still && !both {
			if err := f.putCgroup(id, 0); err != nil {
				return err
			}
		}
	}
	for id, mask := range cgroups {
		word := uint64(mask) << c.shift
		if both {
			word |= uint64(f.now.Cgroups[id]) << (32 - c.shift)
		}
		if err := f.putCgroup(id, word); err != nil {
			return err
		}
	}
	return nil
}

func (f *filterMaps) putCgroup(id, word uint64) error {
	err := f.states.setFilters(id, word)
	if errors.Is(err, ErrNoCgroup) {
		return nil
	}
	return err
}

// SetCgroupFilters says which filters of the set in force name a cgroup, a bit each by
// their place.
func (k *Kernel) SetCgroupFilters(cgroup uint64, mask uint32) error {
	f := k.filters
	f.mu.Lock()
	defer f.mu.Unlock()
	if mask == f.now.Cgroups[cgroup] {
		return nil
	}
	if f.now.Cgroups == nil {
		f.now.Cgroups = map[uint64]uint32{}
	}
	f.now.Cgroups[cgroup] = mask
	if mask == 0 {
		delete(f.now.Cgroups, cgroup)
	}
	return f.putCgroup(cgroup, uint64(mask)<<(32*half(f.upper)))
}

// FilterHits gives what the set in force has filtered.
func (k *Kernel) FilterHits() (Hits, error) {
	f := k.filters
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.read(f.upper, f.now)
}

// read gives what a set has filtered.
func (f *filterMaps) read(upper bool, set Filters) (h Hits, err error) {
	from := uint32(half(upper))
	if h.Filters, err = f.counts(from*MaxFilters, len(set.Filters)); err != nil {
		return h, err
	}
	h.Quick, err = f.counts(2*MaxFilters+from*MaxQuick, len(set.Quick))
	return h, err
}

func (f *filterMaps) counts(from uint32, n int) ([]uint64, error) {
	out := make([]uint64, n)
	for i := range out {
		var perCPU []uint64
		if err := f.hits.Lookup(from+uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read what filters counted: %w", err)
		}
		for _, v := range perCPU {
			out[i] += v
		}
	}
	return out, nil
}

// forget begins the counts of a half anew.
func (f *filterMaps) forget(upper bool) error {
	zeros := make([]uint64, f.cpus)
	from := half(upper)
	for i := range MaxFilters {
		if err := f.hits.Put(uint32(from*MaxFilters+i), zeros); err != nil {
			return fmt.Errorf("begin the counts of filters: %w", err)
		}
	}
	for i := range f.used[from] {
		if err := f.hits.Put(uint32(2*MaxFilters+from*MaxQuick+i), zeros); err != nil {
			return fmt.Errorf("begin the counts of filters: %w", err)
		}
	}
	return nil
}
