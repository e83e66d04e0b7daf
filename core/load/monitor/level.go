package monitor

import (
	"fmt"
	"math"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Resource is something that can be used up.
type Resource uint8

// Resources, each measured as a share of 0 to 1.
const (
	CPU            Resource = iota // time of the host that was not idle
	Memory                         // of the host that is not available
	PressureCPU                    // time in which some task waited for a CPU
	PressureMemory                 // for memory
	PressureIO                     // for I/O
	Network                        // of its speed, that the busiest interface used
	Disk                           // time with I/O under way, of the busiest disk
	Ring                           // of the kernel's ring, that is in use
	Queue                          // of the fullest queue
	// Resources is how many there are.
	Resources
)

var resourceNames = [Resources]string{
	"cpu", "memory", "cpu pressure", "memory pressure", "io pressure", "network", "disk", "ring", "queue",
}

// String is the resource's name in reasons.
func (r Resource) String() string {
	if r < Resources {
		return resourceNames[r]
	}
	return "unknown"
}

// Level is how high a load is.
type Level uint8

// Levels, each above the last.
const (
	Low Level = iota
	Medium
	High
	Critical
	// Levels is how many there are.
	Levels
)

var levelNames = [Levels]string{"low", "medium", "high", "critical"}

// String is the level's name in output.
func (l Level) String() string {
	if l < Levels {
		return levelNames[l]
	}
	return "unknown"
}

// Shares of the resources that are in use; NaN: not told.
type Shares [Resources]float64

// SharesOf takes the shares out of a host's load. It tells nothing of the ring and the
// queues.
func SharesOf(h *protov1.HostLoad) Shares {
	var s Shares
	for i := range s {
		s[i] = math.NaN()
	}
	if total := h.GetMemoryTotalBytes(); total > 0 && h.GetMemoryAvailableBytes() <= total {
		s[Memory] = 1 - float64(h.GetMemoryAvailableBytes())/float64(total)
	}
	told := func(r Resource, v *float64) {
		if v != nil {
			s[r] = *v
		}
	}
	told(CPU, h.CpuUtilization)
	told(Network, h.NetworkUtilization)
	told(Disk, h.DiskUtilization)
	pressed := func(r Resource, p *protov1.Pressure) {
		if p != nil {
			s[r] = p.GetSome()
		}
	}
	pressed(PressureCPU, h.GetPressureCpu())
	pressed(PressureMemory, h.GetPressureMemory())
	pressed(PressureIO, h.GetPressureIo())
	return s
}

// Bounds of a resource's levels: each begins at its bound. One of 0 is never reached.
type Bounds struct{ Medium, High, Critical float64 }

// of gives the bound of a level above Low, 0 for none.
func (b Bounds) of(l Level) float64 { return [Levels]float64{0, b.Medium, b.High, b.Critical}[l] }

// Thresholds are the bounds of all resources.
type Thresholds [Resources]Bounds

// DefaultThresholds are:
//
//	                  medium   high   critical
//	cpu                 60 %   80 %       95 %
//	memory              75 %   90 %       95 %
//	cpu pressure        20 %   40 %       70 %
//	memory pressure      5 %   15 %       30 %
//	io pressure         20 %   40 %       70 %
//	network             60 %   80 %       95 %
//	disk                60 %   80 %      never
//	ring, queue         25 %   50 %       75 %
//
// A disk is never critical by itself: one that serves many requests at a time has some
// under way all the time long before it is at its end, which io pressure tells. Events
// wait in a ring or queue only when their reader is behind.
func DefaultThresholds() Thresholds {
	return Thresholds{
		CPU:            {0.60, 0.80, 0.95},
		Memory:         {0.75, 0.90, 0.95},
		PressureCPU:    {0.20, 0.40, 0.70},
		PressureMemory: {0.05, 0.15, 0.30},
		PressureIO:     {0.20, 0.40, 0.70},
		Network:        {0.60, 0.80, 0.95},
		Disk:           {0.60, 0.80, 0},
		Ring:           {0.25, 0.50, 0.75},
		Queue:          {0.25, 0.50, 0.75},
	}
}

// State is a level and what decided on it.
type State struct {
	Level    Level
	Resource Resource  // the one that presses most
	Share    float64   // of it; NaN: not told any more
	Name     string    // of the interface, disk or queue that it is about, if any
	Since    time.Time // when this level began; zero in what has no memory
}

// String is as "cpu 91 %" or "disk sda 85 %".
func (s State) String() string {
	name := s.Resource.String()
	if s.Name != "" {
		name += " " + s.Name
	}
	if math.IsNaN(s.Share) {
		return name
	}
	return name + " " + percent(s.Share)
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", share*100) }

// Assess says how high the load is, looking at nothing but the shares: the highest level
// that a resource has reached.
func (t Thresholds) Assess(s Shares) State {
	var levels [Resources]Level
	for r, b := range t {
		for l := Medium; l < Levels; l++ {
			if reached(s[r], b.of(l)) {
				levels[r] = l
			}
		}
	}
	return t.decide(levels, s)
}

func reached(share, bound float64) bool { return bound > 0 && share >= bound }

// decide finds the resource on the highest level. Among several it is the one that is
// furthest into it; on low, the one that is nearest to medium.
func (t Thresholds) decide(levels [Resources]Level, s Shares) State {
	var out State
	most := math.Inf(-1)
	for r, l := range levels {
		bound := t[r].of(max(l, Medium))
		into := s[r] / bound
		if bound == 0 || math.IsNaN(into) {
			into = -1 // held on a level of which nothing is told any more
		}
		if l > out.Level || l == out.Level && into > most {
			out.Level, out.Resource, out.Share = l, Resource(r), s[r]
			most = into
		}
	}
	return out
}

// gauge assesses with a memory, so that the level does not flutter: a level begins as soon
// as a resource reaches it, and ends once that has been below it, by a tenth of its bound
// at least, for 5 s.
type gauge struct {
	thresholds Thresholds
	latches    [Resources][Levels]latch
	state      State
}

// observe takes the shares at now, which must not go back. What is not told counts as
// below.
func (g *gauge) observe(now time.Time, s Shares) State {
	var levels [Resources]Level
	for r := range g.latches {
		for l := Medium; l < Levels; l++ {
			bound := g.thresholds[r].of(l)
			if g.latches[r][l].observe(now, reached(s[r], bound), !reached(s[r], bound*release)) {
				levels[r] = l
			}
		}
	}
	state := g.thresholds.decide(levels, s)
	state.Since = g.state.Since
	if state.Level != g.state.Level || state.Since.IsZero() {
		state.Since = now
	}
	g.state = state
	return state
}
