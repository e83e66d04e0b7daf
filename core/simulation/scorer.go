package simulation

import (
	"math"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// Outcome is what was decided about one event.
type Outcome struct {
	Kept   bool
	Weight float64 // of a kept one: 1 over the probability that it was kept with
}

const (
	ringSize  = 0.5 // slots for each event/s of the budget
	ringDrain = 1.2 // events/s drained for each of the budget

	bucket     = int64(time.Millisecond) // width, ns
	inWide     = 10                      // buckets in a wide one
	inSecond   = 1000                    // buckets
	afterStep  = 5 * time.Second
	aboveRate  = 1.25 // of the budget
	leastKept  = 30   // for an interval
	confidence = 1.96 // standard deviations: 95 %
)

// Scorer measures what was decided about the events of a scenario.
//
// Kept events pass through a ring of 0.5 · Budget slots, from which a reader takes 1.2 ·
// Budget events/s, a fraction of one at a time. One that finds no whole slot free is lost,
// as if it had not been kept, and counted. The ring also runs during the warm-up, of which
// nothing is counted.
//
// Memory grows with the greatest number of a group, and with each class's greatest
// attribute. A Scorer is not for several goroutines.
type Scorer struct {
	scenario Scenario
	ring     ring
	end      int64 // ns, since the warm-up as all that follows

	bucketEnd     int64  // of the present one
	inside, wide  uint64 // decided to be kept in it, and in the wide one
	tenth, second window
	above         []time.Duration // for each step

	groups  []group
	classes []class
	touched []uint32 // classes seen in this second

	score                     Score
	weights                   float64 // sum
	critical, keptCritical    uint64
	nowSeen, nowKept          uint64  // in this second
	couldKeep, didKeep        float64 // in whole seconds
	cellsError, cellsTruth    float64
	coveredGroups, liveGroups uint64
}

// group is a workload.
type group struct {
	rows *[event.PooledRows]uint32 // index of a class, plus 1; 0: none yet
	kept bool                      // an event of it
}

// class is what happened to a class in the present second.
type class struct {
	group              uint32
	seen, kept         uint32
	sampled            bool    // a weight was above 1
	estimate, variance float64 // Σ w, Σ w(w-1)
	cells              []cell  // by attribute
}

// cell is an attribute of a class in the present second.
type cell struct{ truth, estimate float64 }

// NewScorer begins before the first event.
func NewScorer(s Scenario) *Scorer {
	return &Scorer{
		scenario: s, end: int64(s.Duration - s.Warmup), bucketEnd: bucket,
		ring:  ring{slots: ringSize * s.Budget, perNS: ringDrain * s.Budget / 1e9},
		above: make([]time.Duration, len(s.Steps)),
	}
}

// Add takes the scenario's events in order, each with what was decided about it. One
// after the scenario's end is ignored.
func (s *Scorer) Add(e Event, o Outcome) {
	kept := o.Kept && s.ring.add(e.At)
	at := e.At - int64(s.scenario.Warmup)
	if at < 0 || at >= s.end {
		return
	}
	if at >= s.bucketEnd {
		s.advance(at)
	}
	s.score.Seen++
	s.nowSeen++
	c := s.class(&e)
	c.seen++
	cell := &c.cells[e.Attribute]
	cell.truth++
	if e.Priority == event.Critical {
		s.critical++
	}
	if !o.Kept {
		return
	}
	s.inside++
	if !kept {
		s.score.RingLost++
		return
	}
	s.keep(&e, c, cell, o.Weight)
}

// keep counts an event that was kept.
func (s *Scorer) keep(e *Event, c *class, cell *cell, weight float64) {
	s.score.Kept++
	s.nowKept++
	s.weights += weight
	if e.Priority == event.Critical {
		s.keptCritical++
	}
	if g := &s.groups[c.group]; !g.kept {
		g.kept = true
		if c.group != 0 {
			s.coveredGroups++
		}
	}
	c.kept++
	c.estimate += weight
	c.variance += weight * (weight - 1)
	c.sampled = c.sampled || weight > 1
	cell.estimate += weight
}

// class finds an event's, which has a cell for its attribute, and has it looked at when
// the second ends.
func (s *Scorer) class(e *Event) *class {
	if int(e.Group) >= len(s.groups) || s.groups[e.Group].rows == nil {
		s.addGroup(e.Group)
	}
	row := &s.groups[e.Group].rows[event.Row(e.Kind, e.Priority)]
	if *row == 0 {
		s.classes = append(s.classes, class{group: e.Group})
		*row = uint32(len(s.classes))
	}
	c := &s.classes[*row-1]
	if c.seen == 0 {
		s.touched = append(s.touched, *row-1)
	}
	if int(e.Attribute) >= len(c.cells) {
		c.cells = append(c.cells, make([]cell, int(e.Attribute)+1-len(c.cells))...)
	}
	return c
}

func (s *Scorer) addGroup(id uint32) {
	for int(id) >= len(s.groups) {
		s.groups = append(s.groups, group{})
	}
	s.groups[id].rows = new([event.PooledRows]uint32)
	if id != 0 {
		s.liveGroups++
	}
}

// advance closes the buckets that end by then.
func (s *Scorer) advance(at int64) {
	for s.bucketEnd <= at {
		s.closeBucket()
		n := s.bucketEnd / bucket
		if n%inWide == 0 {
			s.second.push(s.wide)
			s.wide = 0
		}
		if n%inSecond == 0 {
			s.closeSecond()
		}
		s.bucketEnd += bucket
	}
}

func (s *Scorer) closeBucket() {
	s.wide += s.inside
	s.tenth.push(s.inside)
	s.inside = 0
	if float64(s.tenth.sum) <= aboveRate*s.scenario.Budget/10 {
		return
	}
	now := s.scenario.Warmup + time.Duration(s.bucketEnd)
	for i, step := range s.scenario.Steps {
		if now > step && now <= step+afterStep {
			s.above[i] += time.Duration(bucket)
		}
	}
}

func (s *Scorer) closeSecond() {
	s.didKeep += float64(s.nowKept)
	s.couldKeep += min(float64(s.nowSeen), s.scenario.Budget)
	s.nowSeen, s.nowKept = 0, 0
	for _, i := range s.touched {
		c := &s.classes[i]
		s.closeClass(c)
		*c = class{group: c.group, cells: c.cells}
	}
	s.touched = s.touched[:0]
}

func (s *Scorer) closeClass(c *class) {
	for _, cell := range c.cells {
		s.cellsError += math.Abs(cell.estimate - cell.truth)
		s.cellsTruth += cell.truth
	}
	clear(c.cells)
	if c.kept < leastKept || !c.sampled {
		return
	}
	s.score.Intervals++
	if math.Abs(c.estimate-float64(c.seen)) <= confidence*math.Sqrt(c.variance) {
		s.score.IntervalsHit++
	}
}

// Score is what the events come to, once all were added.
func (s *Scorer) Score() Score {
	s.advance(s.end)
	r := s.score
	r.MaxSecond = float64(s.second.most) / s.scenario.Budget
	r.MaxTenth = float64(s.tenth.most) / (s.scenario.Budget / 10)
	for _, t := range s.above {
		r.Above = max(r.Above, t)
	}
	r.Utilisation = share(s.didKeep, s.couldKeep)
	r.Critical = share(float64(s.keptCritical), float64(s.critical))
	r.Covered = share(float64(s.coveredGroups), float64(s.liveGroups))
	r.Bias = share(s.weights, float64(r.Seen)) - 1
	if s.cellsTruth > 0 {
		r.Error = s.cellsError / s.cellsTruth
	}
	return r
}

func share(part, whole float64) float64 {
	if whole == 0 {
		return 1
	}
	return part / whole
}

// ring is a buffer that is read at a constant rate.
type ring struct {
	slots float64
	perNS float64 // events read
	level float64
	at    int64 // ns, of the level
}

// add an event; false: there is no room.
func (r *ring) add(at int64) bool {
	r.level = max(0, r.level-float64(at-r.at)*r.perNS)
	r.at = at
	if r.level+1 > r.slots {
		return false
	}
	r.level++
	return true
}

// window is the sum over the last 100 buckets.
type window struct {
	buckets   [100]uint64
	i         int // of the oldest
	sum, most uint64
}

func (w *window) push(n uint64) {
	w.sum += n - w.buckets[w.i]
	w.buckets[w.i] = n
	w.i = (w.i + 1) % len(w.buckets)
	w.most = max(w.most, w.sum)
}
