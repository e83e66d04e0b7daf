package main

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// class of events; group "": what has no row of its own.
type class struct{ kind, priority, group string }

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
		chances = 4 // standard deviations
	)
	expected := r.rate * seconds
	chance := math.Sqrt(max(expected, n, 1) * max(weight, 1))
	if now := n / seconds; !r.known || math.Abs(n-expected) > chances*chance {
		r.rate, r.known = now, true
	} else {
		r.rate += part * (now - r.rate)
	}
}

// learned is what is known of the load.
type learned struct {
	pooled   map[class]*rate   // all of the pooled rows
	grouped  map[class]*member // of groups
	reserved rate              // kept before all others
	rows     int               // that groups may have
}

// member is a class of a group.
type member struct {
	rate
	seen, idle int  // reports in a row
	promoted   bool // it has a row
}

func newLearned() *learned {
	return &learned{pooled: map[class]*rate{}, grouped: map[class]*member{}}
}

// The bounds of what is remembered and promoted.
const (
	mostMembers = 16384
	lasting     = 3  // reports with events after which a class has earned a row
	busy        = 20 // events/s that earn one at once
	idle        = 12 // reports without an event that cost it the row
	mostRows    = 4000
)

// hear takes a report of an interval.
func (l *learned) hear(r *protov1.Report, interval time.Duration) {
	seconds := interval.Seconds()
	l.rows = min(int(r.GetRowCapacity()), mostRows)
	exact := map[class]float64{}
	var critical float64
	for _, c := range r.GetClasses() {
		key := class{c.GetClass().GetKind(), c.GetClass().GetPriority(), c.GetClass().GetGroup()}
		n := float64(c.GetSeen() - min(c.GetFiltered(), c.GetSeen()))
		if key.priority == "critical" {
			critical += float64(c.GetKept())
			continue
		}
		if _, weighs := importance[key.priority]; weighs {
			exact[key] += n
		}
	}
	l.reserved.hear(critical, 1, seconds)
	for key := range exact {
		if key.group == "" && l.pooled[key] == nil {
			l.pooled[key] = &rate{}
		}
	}
	for key, p := range l.pooled {
		p.hear(exact[key], 1, seconds)
	}
	l.hearGroups(r, exact, seconds)
	l.promote()
}

// hearGroups takes the classes of groups: those with rows are counted, the others
// estimated.
func (l *learned) hearGroups(r *protov1.Report, exact map[class]float64, seconds float64) {
	weights := map[class]float64{}
	for _, c := range r.GetPooledClasses() {
		key := class{c.GetClass().GetKind(), c.GetClass().GetPriority(), c.GetClass().GetGroup()}
		if _, weighs := importance[key.priority]; !weighs || c.GetKept() == 0 || key.group == "" {
			continue
		}
		exact[key] += float64(c.GetSeen())
		weights[key] = float64(c.GetSeen()) / float64(c.GetKept())
		if l.grouped[key] == nil && len(l.grouped) < mostMembers {
			l.grouped[key] = &member{}
		}
	}
	for key, m := range l.grouped {
		n := exact[key]
		m.hear(n, weights[key], seconds)
		if n > 0 {
			m.seen, m.idle = m.seen+1, 0
			continue
		}
		m.seen, m.idle = 0, m.idle+1
		if m.idle > idle {
			delete(l.grouped, key)
		}
	}
}

// promote chooses the classes that have rows: those that have earned one, the
// busiest first. One that has a row counts double, or two alike would take turns.
func (l *learned) promote() {
	type candidate struct {
		class class
		load  float64
	}
	var candidates []candidate
	for key, m := range l.grouped {
		if m.promoted || m.seen >= lasting || m.rate.rate >= busy {
			load := m.rate.rate
			if m.promoted {
				load *= 2
			}
			candidates = append(candidates, candidate{key, load})
		}
		m.promoted = false
	}
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.load, a.load), cmp.Compare(a.class.group, b.class.group),
			cmp.Compare(a.class.kind, b.class.kind), cmp.Compare(a.class.priority, b.class.priority))
	})
	for _, c := range candidates[:min(len(candidates), l.rows)] {
		l.grouped[c.class].promoted = true
	}
}

// classes gives the load of every class that a plan decides on.
func (l *learned) classes() map[class]float64 {
	out := make(map[class]float64, len(l.pooled))
	for key, p := range l.pooled {
		out[key] = p.rate
	}
	for key, m := range l.grouped {
		if m.promoted {
			out[key] = m.rate.rate
		}
	}
	return out
}

// total load of all classes, in events/s.
func (l *learned) total() (sum float64) {
	for load := range maps.Values(l.classes()) {
		sum += load
	}
	return sum
}
