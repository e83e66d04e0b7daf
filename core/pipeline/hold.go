package pipeline

import "time"

// hold is what waits of one cgroup, in order.
type hold struct {
	cgroup  uint64
	since   uint64 // when the first came, monotonic
	records [][]byte
}

// holds are the events that wait for metadata: copies of their records, bounded
// for each cgroup and in all. Records and their lists are used again, so that in
// the long run holding allocates nothing.
type holds struct {
	perCgroup, total int

	count   int // records
	queue   []*hold
	byID    map[uint64]*hold
	records [][]byte // to use again
	spare   []*hold
	given   map[uint64]struct{} // unknown cgroups that waited in vain
}

func newHolds(perCgroup, total int) holds {
	return holds{
		perCgroup: perCgroup, total: total,
		byID: map[uint64]*hold{}, given: map[uint64]struct{}{},
	}
}

// of gives what waits of a cgroup, nil when nothing does.
func (h *holds) of(cgroup uint64) *hold {
	if h.count == 0 {
		return nil
	}
	if one := h.byID[cgroup]; one != nil && len(one.records) > 0 {
		return one
	}
	return nil
}

// add puts a copy of a record behind the others of its cgroup; false: no room.
func (h *holds) add(cgroup, now uint64, record []byte) bool {
	if h.count >= h.total || h.perCgroup <= 0 {
		return false
	}
	one := h.byID[cgroup]
	if one == nil {
		if n := len(h.spare); n > 0 {
			one, h.spare = h.spare[n-1], h.spare[:n-1]
		} else {
			one = &hold{}
		}
		one.cgroup, one.since = cgroup, now
		h.byID[cgroup] = one
		h.queue = append(h.queue, one)
	}
	if len(one.records) >= h.perCgroup {
		return false
	}
	if len(one.records) == 0 {
		one.since = now
	}
	var b []byte
	if n := len(h.records); n > 0 {
		b, h.records = h.records[n-1], h.records[:n-1]
	}
	one.records = append(one.records, append(b[:0], record...))
	h.count++
	return true
}

// each calls f for every cgroup that waits and ends the wait of those for which
// it returns true.
func (h *holds) each(f func(*hold) bool) {
	kept := h.queue[:0]
	for _, one := range h.queue {
		if !f(one) {
			kept = append(kept, one)
			continue
		}
		h.empty(one)
		delete(h.byID, one.cgroup)
		h.spare = append(h.spare, one)
	}
	clear(h.queue[len(kept):])
	h.queue = kept
}

// empty takes back the records of what waits no more.
func (h *holds) empty(one *hold) {
	h.count -= len(one.records)
	h.records = append(h.records, one.records...)
	clear(one.records)
	one.records = one.records[:0]
}

// mostWaived bounds what is remembered of unknown cgroups.
const mostWaived = 4096

// waive remembers that a cgroup that nobody knows waited in vain.
func (h *holds) waive(cgroup uint64) {
	if len(h.given) >= mostWaived {
		clear(h.given)
	}
	h.given[cgroup] = struct{}{}
}

func (h *holds) waived(cgroup uint64) bool {
	_, ok := h.given[cgroup]
	return ok
}

// Histogram counts durations. The zero Histogram is ready.
type Histogram struct {
	Counts [len(HistogramBounds) + 1]uint64 // the last: above all bounds
	Sum    time.Duration
}

// HistogramBounds are the upper bounds of a Histogram, inclusive.
var HistogramBounds = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond,
	20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	200 * time.Millisecond, 500 * time.Millisecond, time.Second,
}

// Observe counts one duration.
func (h *Histogram) Observe(d time.Duration) {
	at := 0
	for at < len(HistogramBounds) && d > HistogramBounds[at] {
		at++
	}
	h.Counts[at]++
	h.Sum += d
}

// Quantile is the upper bound under which the share q of the durations lies; 0
// when there are none, and the greatest bound when it lies above all.
func (h *Histogram) Quantile(q float64) time.Duration {
	var all uint64
	for _, n := range h.Counts {
		all += n
	}
	if all == 0 {
		return 0
	}
	var sum uint64
	for i, bound := range HistogramBounds {
		sum += h.Counts[i]
		if float64(sum) >= q*float64(all) {
			return bound
		}
	}
	return HistogramBounds[len(HistogramBounds)-1]
}
