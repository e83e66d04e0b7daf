// Package simulation holds the loads that samplers are measured with, and the
// yardstick: named scenarios of events as they would arrive from a kernel, and a
// scorer of what was decided about each.
//
// It exists so that one sampler is compared with another, or with itself a year ago,
// by the same events and the same figures. A scenario is frozen: a seed gives the
// same events on every run, and nothing reads a clock. The package owns no sampler,
// starts no goroutine, and must never import what it measures.
package simulation

import (
	"iter"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// Event is one arrival, before any decision.
type Event struct {
	At        int64          // ns of virtual time, never falling
	Group     uint32         // the workload (container, service) it is of, numbered from 1; 0: the host
	Kind      event.Kind     // of the kernel
	Priority  event.Priority //
	Attribute uint16         // what a reader breaks totals down by, a path or a peer; numbered from 0
	CPU       uint8          // 0 or 1
	Lifecycle uint64         // identity that its events of one life draw by; 0: a fresh draw each
}

// Scenario is a load, frozen.
type Scenario struct {
	Name, Doc string
	Duration  time.Duration   // all events are before it
	Warmup    time.Duration   // not scored: a sampler's first look
	Steps     []time.Duration // when the load jumps
	Budget    float64         // kept events/s it is meant for
	// Events arrive in order. They are the same each time for the same seed, which
	// also draws which classes are frequent. Iterating allocates nothing per event.
	Events func(seed uint64) iter.Seq[Event]
}

const (
	budget   = 10_000 // events/s
	warmup   = 5 * time.Second
	critical = 50 // events/s, in every scenario
)

// Scenarios are all there are, in the order of their names.
func Scenarios() []Scenario {
	return []Scenario{
		scenario("S1", "2,200 classes, Zipf 1.1, a steady 100k events/s", load{
			classes: 2200, exponent: 1.1,
			events: []phase{{40 * time.Second, 100_000}},
		}),
		scenario("S2", "20 classes, Zipf 0.5, 20k events/s; 100 times that for 5 s", load{
			classes: 20, exponent: 0.5,
			events: []phase{{15 * time.Second, 20_000}, {20 * time.Second, 2_000_000}, {35 * time.Second, 20_000}},
		}),
		scenario("S2b", "500 classes, Zipf 1.1, 20k events/s; 100 times that for 3 s", load{
			classes: 500, exponent: 1.1,
			events: []phase{{15 * time.Second, 20_000}, {18 * time.Second, 2_000_000}, {33 * time.Second, 20_000}},
		}),
		scenario("S3", "200 new containers/s, 2,000/s for 10 s, that live 5 to 500 ms, beside 100 groups with 20k events/s, Zipf 1.1", load{
			classes: 100 * len(sorts), exponent: 1.1,
			events:     []phase{{35 * time.Second, 20_000}},
			containers: []phase{{15 * time.Second, 200}, {25 * time.Second, 2000}, {35 * time.Second, 200}},
		}),
		recorded(),
	}
}

// Find gives a scenario by its name.
func Find(name string) (Scenario, bool) {
	for _, s := range Scenarios() {
		if s.Name == name {
			return s, true
		}
	}
	return Scenario{}, false
}

// scenario of a load: it jumps where a phase ends and another begins.
func scenario(name, doc string, l load) Scenario {
	s := Scenario{Name: name, Doc: doc, Duration: l.duration(), Warmup: warmup, Budget: budget, Events: l.run}
	for _, phases := range [][]phase{l.events, l.containers} {
		for i := 1; i < len(phases); i++ {
			s.Steps = append(s.Steps, phases[i-1].until)
		}
	}
	return s
}
