package simulation

import (
	"iter"
	"math"
	"math/rand/v2"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// load is what a scenario is made of: events of long-lived groups, containers that
// come and go, and critical events, each arriving by itself.
type load struct {
	classes    int
	exponent   float64 // of Zipf's law, over the classes
	events     []phase // of the classes
	containers []phase // new ones; nil: none
}

func (l load) duration() time.Duration { return l.events[len(l.events)-1].until }

// run draws the load's events in order.
func (l load) run(seed uint64) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		pcg := rand.NewPCG(seed, 0)
		rng := rand.New(pcg)
		p := newPopulation(l.classes, l.exponent, rng)
		common := newArrivals(l.events, rng)
		grave := newArrivals([]phase{{l.duration(), critical}}, rng)
		births := newArrivals(l.containers, rng)
		lives := newLives(p.groups)
		for end := int64(l.duration()); ; {
			at := min(common.next, grave.next, births.next, lives.next())
			if at >= end {
				return
			}
			e := Event{At: at}
			switch at {
			case common.next:
				p.draw(&e, pcg)
				common.advance(rng)
			case grave.next:
				e.Group = 1 + rng.Uint32N(p.groups)
				e.Kind, e.Priority = event.ProcessExit, event.Critical
				p.decorate(&e, pcg.Uint64())
				grave.advance(rng)
			case births.next:
				lives.begin(at, rng)
				births.advance(rng)
				continue
			default:
				e = lives.pop()
				p.decorate(&e, pcg.Uint64())
			}
			if !yield(e) {
				return
			}
		}
	}
}

// phase of a load has one rate.
type phase struct {
	until time.Duration
	rate  float64 // arrivals/s
}

// arrivals are a Poisson process whose rate goes through phases.
type arrivals struct {
	phases []phase // from the present one on
	at     float64 // ns
	next   int64   // ns, of the next arrival; math.MaxInt64: there is none
}

func newArrivals(phases []phase, rng *rand.Rand) arrivals {
	a := arrivals{phases: phases}
	a.advance(rng)
	return a
}

// advance to the next arrival. The process has no memory: where a phase ends, the
// next one begins with a gap of its own.
func (a *arrivals) advance(rng *rand.Rand) {
	for ; len(a.phases) > 0; a.phases = a.phases[1:] {
		p := &a.phases[0]
		a.at += float64(rng.ExpFloat64() * 1e9 / p.rate) // rounded here: not fused on arm64
		if a.at < float64(p.until) {
			a.next = int64(a.at)
			return
		}
		a.at = float64(p.until)
	}
	a.next = math.MaxInt64
}

// sort of event that a class has.
type sort struct {
	kind     event.Kind
	priority event.Priority
}

// sorts of which each group has one class.
var sorts = [...]sort{
	{event.ProcessFork, event.Debug},
	{event.ProcessExec, event.Info},
	{event.ProcessExit, event.Info},
	{event.ProcessExit, event.Error},
	{event.NetworkConnect, event.Info},
	{event.NetworkConnectFailed, event.Error},
	{event.NetworkClose, event.Info},
	{event.FileOpen, event.Debug},
	{event.FileOpen, event.Warning},
}

// attributes that each class has.
const attributes = 8

// population is the classes of the long-lived groups.
type population struct {
	groups     uint32   // numbered from 1
	members    []uint32 // class of a rank: the first is the most frequent
	ranks      alias
	attributes alias
}

func newPopulation(classes int, exponent float64, rng *rand.Rand) *population {
	p := &population{
		groups: uint32((classes + len(sorts) - 1) / len(sorts)),
		ranks:  newAlias(zipf(classes, exponent)), attributes: newAlias(zipf(attributes, 1)),
	}
	for _, class := range rng.Perm(classes) {
		p.members = append(p.members, uint32(class))
	}
	return p
}

// draw an event's class, and the rest.
func (p *population) draw(e *Event, pcg *rand.PCG) {
	class := p.members[p.ranks.draw(pcg.Uint64())]
	s := &sorts[class%uint32(len(sorts))]
	e.Group, e.Kind, e.Priority = 1+class/uint32(len(sorts)), s.kind, s.priority
	p.decorate(e, pcg.Uint64())
}

// decorate an event with what does not depend on its class. Of eight slots the three
// highest bits choose one, and the lower half decides on the alias: the CPU has a bit
// of its own.
func (p *population) decorate(e *Event, random uint64) {
	e.Attribute = uint16(p.attributes.draw(random))
	e.CPU = uint8(random >> 32 & 1)
}

// zipf gives the weights of n ranks.
func zipf(n int, exponent float64) []float64 {
	w := make([]float64, n)
	for i := range w {
		w[i] = math.Pow(float64(i+1), -exponent)
	}
	return w
}

// alias draws an index with given weights, in constant time: M. D. Vose, A linear
// algorithm for generating random numbers with a given distribution, 1991.
type alias []slot

// slot stands for its own index below the threshold, and for another above.
type slot struct{ threshold, other uint32 }

func newAlias(weights []float64) alias {
	var sum float64
	for _, w := range weights {
		sum += w
	}
	a := make(alias, len(weights))
	scaled := make([]float64, len(weights)) // the mean is 1
	var small, large []int
	for i, w := range weights {
		a[i] = slot{math.MaxUint32, uint32(i)}
		scaled[i] = w / sum * float64(len(weights))
		if scaled[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		a[s] = slot{uint32(scaled[s] * (1 << 32)), uint32(l)}
		scaled[l] -= 1 - scaled[s]
		if scaled[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	return a
}

// draw takes the slot from the upper half of a random number and the choice from
// the lower.
func (a alias) draw(random uint64) uint32 {
	i := uint32(random >> 32 * uint64(len(a)) >> 32)
	if s := &a[i]; uint32(random) >= s.threshold {
		return s.other
	}
	return i
}
