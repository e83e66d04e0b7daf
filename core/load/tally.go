package load

import (
	"cmp"
	"math"
	"slices"
	"sync"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// Bounds of a Tally.
const (
	mostCgroups = 16384 // told apart; events of others are left to the pooled rows
	idleReports = 40    // without an event, after which a cgroup is forgotten
	mostTold    = 4096  // pooled classes in a report
)

// Tally estimates, from the events that were kept and their weights, how many events
// each class of each group has, which the pooled rows do not tell apart. Add is for
// one goroutine, the rest for another.
type Tally struct {
	mu      sync.Mutex
	cgroups map[uint64]*member
	last    *member // events come in runs
	sums    [event.PooledRows]Sum
}

// Sum of events that were kept, since the start.
type Sum struct {
	Events   uint64
	Weight   float64 // estimates how many there were
	Variance float64 // of that: the sum of w(w-1) over the weights w
}

func (s *Sum) add(weight float64) {
	s.Events++
	s.Weight += weight
	s.Variance += weight * (weight - 1)
}

// Interval holds, 95 times of 100, the number of events that there were. It is of a
// normal distribution, which a few dozen events are enough for. There were at least
// those that were kept.
func (s Sum) Interval() (low, high float64) {
	half := 1.96 * math.Sqrt(max(s.Variance, 0))
	return max(s.Weight-half, float64(s.Events)), s.Weight + half
}

// member is a cgroup of a group.
type member struct {
	id      uint64
	group   string
	classes []estimate
	idle    int
}

type estimate struct {
	row  uint16 // pooled: event.Row
	kept uint32
	seen float64
}

// NewTally makes an empty one.
func NewTally() *Tally { return &Tally{cgroups: map[uint64]*member{}} }

// Add counts a kept event of the kernel, in 13 ns where the one before was of the same
// cgroup. A cgroup of 0 is none. name gives the group of its cgroup; it is asked when the
// cgroup is new, and again when no event of it has been seen for some reports.
func (t *Tally) Add(cgroup uint64, kind event.Kind, priority event.Priority, weight float64, name func() string) {
	row := event.Row(kind, priority)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sums[row].add(weight)
	if cgroup == 0 {
		return // nobody's
	}
	m := t.last
	if m == nil || m.id != cgroup {
		if m = t.cgroups[cgroup]; m == nil {
			if len(t.cgroups) >= mostCgroups {
				return
			}
			m = &member{id: cgroup, group: name()}
			t.cgroups[cgroup] = m
		}
		t.last = m
	}
	for i := range m.classes {
		if c := &m.classes[i]; int(c.row) == row {
			c.kept++
			c.seen += weight
			return
		}
	}
	m.classes = append(m.classes, estimate{row: uint16(row), kept: 1, seen: weight})
}

// Sums are those of all events that were added since the start, by event.Row.
func (t *Tally) Sums() [event.PooledRows]Sum {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sums
}

// groupClass is a pooled class of a group.
type groupClass struct {
	group string
	row   int
}

// take gives what was counted since it was last called, by class, the busiest first,
// the cgroups of each group and how many had events at all, and begins anew.
func (t *Tally) take(own func(groupClass) bool) (classes []classEstimate, cgroups map[string][]uint64, busy int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sums := map[groupClass]*classEstimate{}
	cgroups = make(map[string][]uint64, len(t.cgroups))
	idlest := idleReports
	if len(t.cgroups) > mostCgroups/2 { // they come and go: make room
		idlest /= 10
	}
	for id, m := range t.cgroups {
		if len(m.classes) == 0 {
			if m.idle++; m.idle > idlest {
				delete(t.cgroups, id)
				if t.last == m {
					t.last = nil
				}
				continue
			}
		} else {
			m.idle = 0
			busy++
		}
		if m.group == "" { // what is not known can't be told apart
			m.classes = m.classes[:0]
			continue
		}
		cgroups[m.group] = append(cgroups[m.group], id)
		for _, c := range m.classes {
			key := groupClass{m.group, int(c.row)}
			if own(key) {
				continue
			}
			s := sums[key]
			if s == nil {
				s = &classEstimate{groupClass: key}
				sums[key] = s
			}
			s.kept += uint64(c.kept)
			s.seen += c.seen
		}
		m.classes = m.classes[:0]
	}
	classes = make([]classEstimate, 0, len(sums))
	for _, s := range sums {
		classes = append(classes, *s)
	}
	slices.SortFunc(classes, func(a, b classEstimate) int {
		return cmp.Or(cmp.Compare(b.seen, a.seen), cmp.Compare(a.group, b.group), cmp.Compare(a.row, b.row))
	})
	return classes, cgroups, busy
}

type classEstimate struct {
	groupClass
	kept uint64
	seen float64
}
