package main

import (
	"math"
	"time"

	"gonum.org/v1/gonum/stat"
)

// Bounds of what is remembered of seasons: 2 · 4 B · mostSlots · mostSeasons = 2 MB.
const (
	mostSlots   = 4096
	mostSeasons = 64 // kinds and priorities that have one, those that came first
)

// calendar divides a season into slots, and tells which one it is. It goes by the clock
// of the reports, so that what comes every hour comes in the same slot.
type calendar struct {
	season, interval time.Duration
	counts           []float64 // intervals heard in each slot of this cycle; nil: there is no season
	origin, now      time.Duration
	cycle            int64
	begun, broken    bool // broken: of this cycle something is missing
}

func newCalendar(season, interval time.Duration) calendar {
	if season <= 0 || interval <= 0 {
		return calendar{}
	}
	return calendar{season: season, interval: interval, counts: make([]float64, min((season+interval-1)/interval, mostSlots))}
}

// moment is where in the season a report stands.
type moment struct {
	slot, next int  // of its interval, and of the one after it
	ended      bool // its interval is the first of a new cycle
	whole      bool // and nothing was missing of the one before
}

// pass lets an interval pass that ends at a time of the clock; 0: it is not known.
func (c *calendar) pass(clock, interval time.Duration) moment {
	if c.counts == nil {
		return moment{}
	}
	const horizon = math.MaxInt64 / 4 // of times that can be added up
	lost := interval > c.season
	interval = min(interval, c.season)
	c.now += interval
	off := max(interval, c.season/time.Duration(len(c.counts)))
	if known := clock > 0 && clock < horizon; known && (clock-c.now).Abs() > off {
		lost = c.begun
		c.now = clock
	} else if c.now > horizon {
		c.now, lost = 0, true
	}
	if !c.begun {
		c.begun = true
		c.origin = (c.now - interval) % c.season
		c.cycle = c.at(c.now - interval/2)
	}
	middle := c.now - interval/2
	m := moment{slot: c.slot(middle), next: c.slot(middle + interval)}
	if cycle := c.at(middle); cycle != c.cycle {
		m.ended, m.whole = true, !c.broken && !lost && cycle == c.cycle+1
		c.cycle, c.broken = cycle, false
	}
	c.broken = c.broken || lost
	return m
}

// at gives the number of the cycle that a time is in.
func (c *calendar) at(t time.Duration) int64 { return int64((t - c.origin + 2*c.season) / c.season) }

func (c *calendar) slot(t time.Duration) int {
	within := (t - c.origin + 2*c.season) % c.season
	return min(int(float64(within)/float64(c.season)*float64(len(c.counts))), len(c.counts)-1)
}

// season is by how much the load of each slot differs from that of its cycle, in
// events/s. It is learned from whole cycles, as in the classical decomposition, and not
// from report to report: there a step of the load would pass for a part of the season.
type season struct {
	shifts []float32 // nil: no cycle was heard yet
	sums   []float32 // of the loads in each slot of this cycle
	mean   float64   // of the last cycle
}

// close a cycle of which the calendar has counted all intervals.
func (s *season) close(c *calendar) {
	const (
		part   = 0.3 // that a cycle changes of what is known
		chance = 2   // standard deviations that are no season
	)
	loads := make([]float64, len(s.sums))
	for i, n := range c.counts {
		loads[i] = float64(s.sums[i]) / max(n, 1)
	}
	mean := stat.Mean(loads, c.counts)
	slope, weight := 0.0, 1.0 // from slot to slot, of a trend that goes on from cycle to cycle
	if s.shifts == nil {
		s.shifts = make([]float32, len(s.sums))
	} else {
		slope, weight = (mean-s.mean)/float64(len(loads)), part
	}
	s.mean = mean
	for i, n := range c.counts {
		if n == 0 {
			continue
		}
		shift := loads[i] - mean - slope*(float64(i)-float64(len(loads)-1)/2)
		shift = float64(s.shifts[i]) + weight*(shift-float64(s.shifts[i]))
		if math.Abs(shift) < chance*math.Sqrt(max(loads[i], mean)/(n*c.interval.Seconds())) {
			shift = 0
		}
		s.shifts[i] = float32(shift)
	}
}
