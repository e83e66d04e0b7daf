package sampling

import (
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/simulation"
)

// lead is how long every candidate sees a scenario's first phase before the scenario
// begins: as long as the slowest of them looks back, twice.
const lead = 60 * time.Second

// prerolled is a scenario after some time of its first phase, over and over, which is
// not scored. Containers that come and go are others each time.
func prerolled(s simulation.Scenario, lead time.Duration) simulation.Scenario {
	all, phase := s.Events, s.Duration
	if len(s.Steps) > 0 {
		phase = s.Steps[0]
	}
	s.Duration += lead
	s.Warmup += lead
	s.Steps = slices.Clone(s.Steps)
	for i := range s.Steps {
		s.Steps[i] += lead
	}
	s.Events = func(seed uint64) iter.Seq[simulation.Event] {
		return func(yield func(simulation.Event) bool) {
			for from := time.Duration(0); from < lead; from += phase {
				others := renumbered(uint32(from/phase) + 1)
				for e := range all(seed) {
					if e.At >= int64(min(phase, lead-from)) {
						break
					}
					e.At += int64(from)
					others(&e)
					if !yield(e) {
						return
					}
				}
			}
			for e := range all(seed) {
				e.At += int64(lead)
				if !yield(e) {
					return
				}
			}
		}
	}
	return s
}

// renumbered gives lives numbers of their own, and with them containers that come and
// go: groups that begin with the life that has their number.
func renumbered(time uint32) func(*simulation.Event) {
	passing := map[uint32]bool{} // groups, and whether they come and go
	return func(e *simulation.Event) {
		if _, known := passing[e.Group]; !known {
			passing[e.Group] = e.Lifecycle != 0 && e.Lifecycle == uint64(e.Group)
		}
		if e.Lifecycle != 0 {
			e.Lifecycle += uint64(time) << 32
		}
		if passing[e.Group] {
			e.Group += time << 24
		}
	}
}

func TestAPrerollIsTheFirstPhaseAndIsNotScored(t *testing.T) {
	plain := scenario(t, "S3")
	s := prerolled(plain, lead)
	if s.Warmup != plain.Warmup+lead || s.Duration != plain.Duration+lead || s.Steps[0] != plain.Steps[0]+lead {
		t.Errorf("%v of %v are not scored, steps %v", s.Warmup, s.Duration, s.Steps)
	}
	var before, last int64
	late := map[uint32]int{} // groups, by which time they were seen
	next, stop := iter.Pull(plain.Events(seed))
	defer stop()
	for e := range s.Events(seed) {
		if e.At < last {
			t.Fatalf("at %d comes an event of %d", last, e.At)
		}
		last = e.At
		if e.At < int64(lead) {
			before++
			if e.Lifecycle != 0 {
				late[e.Group]++
			}
			continue
		}
		want, _ := next()
		want.At += int64(lead)
		if e != want {
			t.Fatalf("%+v, want %+v", e, want)
		}
		if e.Lifecycle != 0 && late[e.Group] > 0 {
			t.Fatalf("container %d was there before", e.Group)
		}
	}
	if _, more := next(); more {
		t.Error("the scenario's end is missing")
	}
	// 20k events/s, and 200 containers with nine.
	if rate := float64(before) / lead.Seconds(); rate < 21_000 || rate > 22_500 {
		t.Errorf("%v events/s before it", rate)
	}
}
