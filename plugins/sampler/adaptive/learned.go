package main

import (
	"cmp"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// The bounds of what is remembered and promoted.
const (
	mostGrouped = 16384
	mostPooled  = 1024
	mostRows    = 4000
	lasting     = 3  // reports with events after which a class has earned a row
	busy        = 20 // events/s that earn one at once
	idle        = 12 // reports without an event that cost it the row
)

// rate is a moving average in events/s that goes a quarter of the way with each
// report, and all of it at once when what came can't be chance.
type rate struct {
	rate  float64
	known bool
}

// hear takes n events of an interval, each of which stands for weight.
func (r *rate) hear(n, weight, seconds float64) {
	const (
		part    = 0.25
		chances = 4    // standard deviations
		nothing = 1e-3 // events/s
	)
	expected := r.rate * seconds
	chance := math.Sqrt(max(expected, n, 1) * max(weight, 1))
	if now := n / seconds; !r.known || math.Abs(n-expected) > chances*chance {
		r.rate, r.known = now, true
	} else if r.rate += part * (now - r.rate); r.rate < nothing {
		r.rate = 0
	}
}

// class of events; group "": what has no row of its own.
type class struct{ kind, priority, group string }

// member is a class and what is known of its load.
type member struct {
	rate
	match    *protov1.ClassPattern // of its rules, in all policies; nil: the place is free
	priority priority
	pooled   int32 // number of its pooled class; of one, its own

	heard  float64 // events of the report at hand
	weight float64 // what each that was counted stands for
	total  float64 // of a pooled one: what was heard of all groups

	told       bool  // of a pooled one: it has been in a report
	promoted   bool  // of one of a group: it has a row
	seen, idle int32 // reports in a row
}

// decided tells whether a plan decides on it.
func (m *member) decided() bool { return m.told || m.promoted }

func (m *member) grouped() bool { return m.match.GetGroup() != "" }

func (m *member) class() class {
	return class{m.match.GetKind(), m.match.GetPriority(), m.match.GetGroup()}
}

// learned is what is known of the load. Each class has a number, its place in members,
// by which all else finds it; names are looked up once for each class of a report.
// Numbers of pooled classes stay theirs, those of groups are used again.
type learned struct {
	numbers  map[class]int32
	members  []member
	free     []int32
	pooled   int  // members that are
	grouped  int  // those that are not
	reserved rate // kept before all others
	rows     int  // that groups may have
	aspiring []aspirant
}

func newLearned() *learned { return &learned{numbers: map[class]int32{}} }

// hear takes a report of an interval.
func (l *learned) hear(r *protov1.Report, interval time.Duration) {
	seconds := interval.Seconds()
	for i := range l.members {
		m := &l.members[i]
		m.heard, m.weight, m.total = 0, 0, 0
	}
	l.reserved.hear(l.count(r), 1, seconds)
	l.estimate(r)
	for i := range l.members {
		m := &l.members[i]
		switch {
		case m.told:
			m.hear(m.heard, 1, seconds)
		case m.match != nil && m.grouped():
			m.hear(m.heard, m.weight, seconds)
			if m.heard > 0 {
				m.seen, m.idle = m.seen+1, 0
			} else if m.seen, m.idle = 0, m.idle+1; m.idle > idle {
				l.forget(int32(i))
			}
		}
	}
	l.rows = min(int(r.GetRowCapacity()), mostRows)
	l.promote()
}

// count takes what was counted, and gives how many critical events were kept.
func (l *learned) count(r *protov1.Report) (critical float64) {
	for _, load := range r.GetClasses() {
		c := load.GetClass()
		if c.GetPriority() == "critical" {
			critical += float64(load.GetKept())
			continue
		}
		// At the edges of an interval more may be filtered than was seen.
		n := float64(load.GetSeen() - min(load.GetFiltered(), load.GetSeen()))
		key := class{c.GetKind(), c.GetPriority(), c.GetGroup()}
		number, ok := l.numbers[key]
		if !ok {
			// A class of a group that is not known any more counts with the others.
			if number, ok = l.pool(key); !ok {
				continue
			}
			if key.group != "" {
				l.members[number].total += n
				continue
			}
		}
		m := &l.members[number]
		m.heard += n
		m.told = m.told || m.pooled == number
		l.members[m.pooled].total += n
	}
	return critical
}

// estimate takes what is estimated of classes of groups that have no row.
func (l *learned) estimate(r *protov1.Report) {
	for _, load := range r.GetPooledClasses() {
		c := load.GetClass()
		if load.GetKept() == 0 || c.GetGroup() == "" {
			continue
		}
		key := class{c.GetKind(), c.GetPriority(), c.GetGroup()}
		number, ok := l.numbers[key]
		if !ok {
			pooled, ok := l.pool(key)
			if !ok || l.grouped >= mostGrouped {
				continue
			}
			number = l.number(key, pooled)
		}
		m := &l.members[number]
		m.heard += float64(load.GetSeen())
		m.weight = float64(load.GetSeen()) / float64(load.GetKept())
	}
}

// pool numbers the pooled class of a class.
func (l *learned) pool(of class) (int32, bool) {
	of.group = ""
	if number, ok := l.numbers[of]; ok {
		return number, true
	}
	if _, ok := parsePriority(of.priority); !ok || l.pooled >= mostPooled {
		return 0, false
	}
	return l.number(of, -1), true
}

// number a class that has none, of a priority that weighs. pooled is the number of its
// pooled class, or -1 if it is one.
func (l *learned) number(c class, pooled int32) int32 {
	n := int32(len(l.members))
	if last := len(l.free) - 1; last >= 0 {
		n, l.free = l.free[last], l.free[:last]
	} else {
		l.members = append(l.members, member{})
	}
	if pooled < 0 {
		pooled = n
		l.pooled++
	} else {
		l.grouped++
	}
	p, _ := parsePriority(c.priority)
	l.members[n] = member{
		match:    &protov1.ClassPattern{Kind: proto.String(c.kind), Priority: proto.String(c.priority), Group: proto.String(c.group)},
		priority: p, pooled: pooled,
	}
	l.numbers[c] = n
	return n
}

// forget a class of a group.
func (l *learned) forget(number int32) {
	m := &l.members[number]
	delete(l.numbers, m.class())
	*m = member{}
	l.free = append(l.free, number)
	l.grouped--
}

// aspirant is a class that has earned a row.
type aspirant struct {
	load   float64
	number int32
}

// promote chooses the classes that have rows: those that have earned one, the
// busiest first. One that has a row counts double, or two alike would take turns.
func (l *learned) promote() {
	l.aspiring = l.aspiring[:0]
	for i := range l.members {
		m := &l.members[i]
		if m.promoted || m.seen >= lasting || m.grouped() && m.rate.rate >= busy {
			load := m.rate.rate
			if m.promoted {
				load *= 2
			}
			l.aspiring = append(l.aspiring, aspirant{load, int32(i)})
		}
		m.promoted = false
	}
	if len(l.aspiring) > l.rows {
		slices.SortFunc(l.aspiring, func(a, b aspirant) int {
			if a.load > b.load {
				return -1
			}
			if a.load < b.load {
				return 1
			}
			x, y := l.members[a.number].class(), l.members[b.number].class()
			return cmp.Or(cmp.Compare(x.group, y.group), cmp.Compare(x.kind, y.kind), cmp.Compare(x.priority, y.priority))
		})
		l.aspiring = l.aspiring[:l.rows]
	}
	for _, a := range l.aspiring {
		l.members[a.number].promoted = true
	}
}
