package main

import (
	"fmt"
	"math"
	"time"

	"gonum.org/v1/gonum/stat"
)

// series is the load of a kind and priority, all groups together. It is forecast with
// its season and without, as C. C. Holt and P. R. Winters do for additive seasons, and
// the one counts that has been less wrong.
type series struct {
	plain, seasonal           holt
	wrongPlain, wrongSeasonal float64 // mean, in events/s, of a season
	compared                  float64 // reports of which that is the mean
	season                    season
	last, next                float64 // what came, and what is to come, in events/s
}

// hear takes the load of an interval. chance is its standard deviation if events come by
// chance, part the interval's part of a season.
func (s *series) hear(load, chance float64, m moment, part float64) {
	if s.season.shifts != nil {
		shift := float64(s.season.shifts[m.slot])
		if s.seasonal.known {
			s.compared++
			part = max(part, 1/s.compared)
			s.wrongPlain += part * (math.Abs(load-s.plain.next()) - s.wrongPlain)
			s.wrongSeasonal += part * (math.Abs(load-shift-s.seasonal.next()) - s.wrongSeasonal)
		}
		s.seasonal.hear(load-shift, chance)
	}
	s.plain.hear(load, chance)
	next := s.plain.next()
	if s.compared > 0 && s.wrongSeasonal < s.wrongPlain {
		next = s.seasonal.next() + float64(s.season.shifts[m.next])
	}
	s.last, s.next = load, max(next, 0)
}

// forecaster says how much of each kind and priority will come in the next interval.
type forecaster struct {
	calendar calendar
	series   []*series // by the number of the pooled class
	seasons  int       // that series have
	record   record
	factor   []float64
}

func newForecaster(c Config) *forecaster {
	return &forecaster{calendar: newCalendar(c.Season, c.Interval)}
}

// hear takes what was learned of a report whose interval ended at a time of the clock.
func (f *forecaster) hear(l *learned, clock, interval time.Duration) {
	m := f.calendar.pass(clock, interval)
	part := 0.0
	if f.calendar.counts != nil {
		if m.ended {
			f.close(m.whole)
		}
		f.calendar.counts[m.slot]++
		part = min(interval.Seconds()/f.calendar.season.Seconds(), 1)
	}
	for len(f.series) < len(l.members) {
		f.series = append(f.series, nil)
	}
	var came, own, naive float64
	for i := range l.members {
		if l.members[i].match == nil || l.members[i].grouped() {
			continue
		}
		if f.series[i] == nil {
			f.series[i] = f.begin() // nothing came of it before
		}
		s := f.series[i]
		load := l.members[i].total / interval.Seconds()
		came += load
		own += math.Abs(load - s.next)
		naive += math.Abs(load - s.last)
		if s.season.sums != nil {
			s.season.sums[m.slot] += float32(load)
		}
		s.hear(load, math.Sqrt(load/interval.Seconds()), m, part)
	}
	if came > 0 {
		f.record.add(min(own/came, 1), min(naive/came, 1))
	}
}

func (f *forecaster) begin() *series {
	s := &series{}
	if f.calendar.counts != nil && f.seasons < mostSeasons {
		f.seasons++
		s.season.sums = make([]float32, len(f.calendar.counts))
	}
	return s
}

// close a cycle, of which all was heard if whole, and begin another.
func (f *forecaster) close(whole bool) {
	for _, s := range f.series {
		if s == nil || s.season.sums == nil {
			continue
		}
		if whole {
			s.season.close(&f.calendar)
		}
		clear(s.season.sums)
	}
	clear(f.calendar.counts)
}

// factors gives how many times as much of each class will come as was learned, by the
// number of its pooled class. They are bounded, so that no forecast can starve what it
// is wrong about for an interval.
func (f *forecaster) factors(l *learned) []float64 {
	const most = 10
	f.factor = append(f.factor[:0], make([]float64, len(l.members))...)
	for i := range l.members {
		if m := &l.members[i]; m.decided() {
			f.factor[m.pooled] += m.rate.rate
		}
	}
	for i, learned := range f.factor {
		f.factor[i] = 1
		if learned > 0 && f.series[i] != nil {
			f.factor[i] = min(max(f.series[i].next/learned, 1.0/most), most)
		}
	}
	return f.factor
}

// record is how far off forecasts have been: the share of an interval's events that
// came where they were not expected, or did not come where they were, 1 at most. Beside
// it stands the naive forecast, that each interval is as the last one was.
type record struct {
	own, naive, lead []float64 // of the last intervals; lead is own - naive
	next             int       // place of the next one
	good             bool      // the forecasts are to be used
}

const (
	remembered = 240 // intervals
	enough     = 40  // of them to judge by
)

func (r *record) add(own, naive float64) {
	if len(r.own) < remembered {
		r.own, r.naive, r.lead = append(r.own, own), append(r.naive, naive), append(r.lead, own-naive)
	} else {
		r.own[r.next], r.naive[r.next], r.lead[r.next] = own, naive, own-naive
		r.next = (r.next + 1) % remembered
	}
	if len(r.own) < enough {
		return
	}
	// Forecasts are used from when they are better by more than chance, as F. X. Diebold
	// and R. S. Mariano compare them (Comparing predictive accuracy, 1995), until they
	// are worse.
	const chance = 2 // standard errors
	mean, deviation := stat.MeanStdDev(r.lead, nil)
	switch {
	case mean > 0:
		r.good = false
	case mean < -chance*stat.StdErr(deviation, float64(len(r.lead))):
		r.good = true
	}
}

// String tells the operator.
func (r *record) String() string {
	if len(r.own) < enough {
		return "no forecast yet"
	}
	off := fmt.Sprintf("forecast off by %.1f %% (naive %.1f %%)", 100*stat.Mean(r.own, nil), 100*stat.Mean(r.naive, nil))
	if !r.good {
		off += " and not used"
	}
	return off
}
