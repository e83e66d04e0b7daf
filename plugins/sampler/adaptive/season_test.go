package main

import (
	"fmt"
	"math"
	"testing"
	"time"
)

func TestACalendarFollowsTheClock(t *testing.T) {
	const interval = 250 * time.Millisecond
	c := newCalendar(time.Second, interval) // four slots
	clock := time.Hour + 130*time.Millisecond
	var got []string
	pass := func(clock, interval time.Duration) {
		m := c.pass(clock, interval)
		s := fmt.Sprint(m.slot, m.next)
		if m.ended {
			s += " ended"
		}
		if m.whole {
			s += " whole"
		}
		got = append(got, s)
	}
	is := func(what string, want ...string) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
		got = nil
	}
	tick := func() { clock += interval; pass(clock, interval) }
	for range 6 {
		tick()
	}
	is("a cycle begins with the first report", "0 1", "1 2", "2 3", "3 0", "0 1 ended whole", "1 2")
	clock += 40 * time.Second
	tick()
	is("the clock is put forward", "2 3 ended")
	tick()
	tick()
	is("and the cycle was not whole", "3 0", "0 1 ended")
	clock -= time.Minute
	tick()
	is("it is put back", "1 2 ended")
	for range 8 {
		tick()
	}
	is("and goes on", "2 3", "3 0", "0 1 ended", "1 2", "2 3", "3 0", "0 1 ended whole", "1 2")
	clock += 2*interval + interval/2
	pass(clock, 2*interval+interval/2)
	is("intervals are merged", "3 1")
	pass(0, interval)
	is("a report without a time", "1 2 ended whole")
	clock += 10 * time.Second
	pass(clock, 10*time.Second)
	is("an interval longer than a season", "2 2 ended")
}

func TestACalendarTakesAnyTime(t *testing.T) {
	for _, season := range []time.Duration{4 * time.Second, time.Hour, 7 * 24 * time.Hour} {
		c := newCalendar(season, time.Second)
		if n := len(c.counts); n > mostSlots || n != int(min(season/time.Second, mostSlots)) {
			t.Errorf("a season of %v has %d slots", season, n)
		}
		for _, clock := range []time.Duration{0, 1, -1, math.MaxInt64, math.MinInt64, time.Hour, math.MaxInt64 / 4, 0, math.MaxInt64/4 - 1, 0, 0} {
			for _, interval := range []time.Duration{1, time.Second, math.MaxInt64} {
				if m := c.pass(clock, interval); m.slot < 0 || m.slot >= len(c.counts) || m.next < 0 || m.next >= len(c.counts) {
					t.Errorf("at %d after %d the slots are %d and %d of %d", clock, interval, m.slot, m.next, len(c.counts))
				}
			}
		}
	}
	c := newCalendar(0, time.Second)
	if m := c.pass(time.Hour, time.Second); m != (moment{}) || c.counts != nil {
		t.Errorf("without a season it is %v", m)
	}
}

func TestASeasonIsWhatChanceDoesNotExplain(t *testing.T) {
	c := newCalendar(4*time.Second, time.Second)
	copy(c.counts, []float64{1, 1, 2, 0})
	s := season{sums: []float32{1000, 1000, 8000, 0}}
	s.close(&c)
	// The mean of the three slots that were heard, the third of them twice, is 2500.
	if got := fmt.Sprint(s.shifts); got != "[-1500 -1500 1500 0]" || s.mean != 2500 {
		t.Errorf("the first cycle's shifts are %v, its mean %v", got, s.mean)
	}
	copy(c.counts, []float64{1, 1, 1, 1})
	s.sums = []float32{2500, 2500, 2500, 2500}
	s.close(&c)
	if got := fmt.Sprint(s.shifts); got != "[-1050 -1050 1050 0]" {
		t.Errorf("a flat one changes three tenths of them: %v", got)
	}
	s = season{sums: []float32{1000, 1060, 940, 1000}}
	if s.close(&c); fmt.Sprint(s.shifts) != "[0 0 0 0]" {
		t.Errorf("two standard deviations of 1000 are 63, and the shifts %v", s.shifts)
	}
	// A trend of 400 a cycle is 100 a slot: 150 and 50 off at the ends.
	s = season{sums: []float32{10_250, 10_350, 10_450, 10_550}, mean: 10_000, shifts: make([]float32, 4)}
	if s.close(&c); fmt.Sprint(s.shifts) != "[0 0 0 0]" {
		t.Errorf("a trend leaves the shifts %v", s.shifts)
	}
}

func TestSeasonsAreBounded(t *testing.T) {
	f := newForecaster(Config{Interval: time.Second, Season: 24 * time.Hour})
	l := newLearned()
	r := report()
	for i := range 3 * mostSeasons {
		r.Classes = append(r.Classes, load(fmt.Sprintf("kind%d debug", i), 5))
	}
	l.hear(r, time.Second)
	f.hear(l, time.Hour, time.Second)
	slots := 0
	for _, s := range f.series {
		slots += len(s.season.sums)
	}
	if slots != mostSeasons*mostSlots {
		t.Errorf("%d slots are remembered, want %d", slots, mostSeasons*mostSlots)
	}
}
