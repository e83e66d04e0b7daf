package simulation

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

const ms = int64(time.Millisecond)

// small is a scenario of 100 kept events/s: a ring of 50 slots, of which 120 are drained
// in a second.
func small() Scenario {
	return Scenario{Duration: 10 * time.Second, Warmup: time.Second, Budget: 100}
}

var (
	dropped = Outcome{}
	kept    = Outcome{Kept: true, Weight: 1}
)

// at is an event of group 1, a file that was opened.
func at(ns int64) Event {
	return Event{At: ns, Group: 1, Kind: event.FileOpen, Priority: event.Debug}
}

func same(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-12 {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func TestARingThatIsFullLosesAndIsCounted(t *testing.T) {
	s := NewScorer(small())
	// 50 slots take 50 of 60. After 25 ms three are free: 0.12 a ms.
	for range 60 {
		s.Add(at(2000*ms), Outcome{true, 2})
	}
	for range 5 {
		s.Add(at(2025*ms), Outcome{true, 2})
	}
	got := s.Score()
	if got.Seen != 65 || got.Kept != 53 || got.RingLost != 12 {
		t.Errorf("of %d events %d were kept and %d lost, want 65, 53 and 12", got.Seen, got.Kept, got.RingLost)
	}
	same(t, "the bias", got.Bias, 106.0/65-1) // what is lost has no weight
}

func TestARingHasNoRoomForAnEventInAPartOfASlot(t *testing.T) {
	s := NewScorer(small())
	for range 50 {
		s.Add(at(2000*ms), kept)
	}
	s.Add(at(2008*ms), kept) // 0.96 of a slot is free
	s.Add(at(2009*ms), kept) // 1.08
	if got := s.Score(); got.Kept != 51 || got.RingLost != 1 {
		t.Errorf("%d kept, %d lost, want 51 and 1", got.Kept, got.RingLost)
	}
}

func TestTheWarmUpFillsTheRingAndIsNotScored(t *testing.T) {
	s := NewScorer(small())
	for range 60 {
		s.Add(at(999*ms), kept)
	}
	s.Add(at(1000*ms), kept) // 0.12 of a slot is free
	got := s.Score()
	want := Score{Seen: 1, RingLost: 1, MaxSecond: 1.0 / 100, MaxTenth: 1.0 / 10, Critical: 1, Bias: -1, Error: 1}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestNothingAfterTheEndIsScored(t *testing.T) {
	s := NewScorer(small())
	s.Add(at(10_000*ms), kept)
	want := Score{Utilisation: 1, Critical: 1, Covered: 1}
	if got := s.Score(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestTheMostInASecondIsOfAWindowThatSlides(t *testing.T) {
	s := NewScorer(small())
	// 40 and 50 events 980 ms apart, across the ends of seconds, are in one window of 1 s;
	// 60 more a second later are not.
	for range 40 {
		s.Add(at(2505*ms), kept)
	}
	for range 50 {
		s.Add(at(3485*ms), kept)
	}
	for range 60 {
		s.Add(at(4495*ms), kept)
	}
	same(t, "the most in a second", s.Score().MaxSecond, 0.9)
}

func TestTheMostInATenthIsOfAWindowThatSlidesByAMillisecond(t *testing.T) {
	s := NewScorer(small())
	for _, ns := range []int64{2050 * ms, 2149*ms + ms/2, 2150 * ms} {
		// The first and second are 99.5 ms apart, the first and third 100.
		for range 7 {
			s.Add(at(ns), kept)
		}
	}
	same(t, "the most in a tenth", s.Score().MaxTenth, 1.4)
}

func TestLossesOfTheRingWereDecidedToBeKept(t *testing.T) {
	s := NewScorer(small())
	for range 200 {
		s.Add(at(2000*ms), kept)
	}
	got := s.Score()
	if got.Kept != 50 {
		t.Errorf("%d kept, want 50", got.Kept)
	}
	same(t, "the most in a second", got.MaxSecond, 2)
	same(t, "the most in a tenth", got.MaxTenth, 20)
}

// 13 events in a bucket are above 12.5 in 100 ms for the 100 buckets that hold them.
func TestTheTimeAboveIsThatOfTheWorstStep(t *testing.T) {
	scenario := small()
	scenario.Duration = 20 * time.Second
	scenario.Steps = []time.Duration{3 * time.Second, 12 * time.Second}
	for _, test := range []struct {
		name   string
		bursts []int64 // ms
		events int
		above  time.Duration
	}{
		{"one burst", []int64{3100}, 13, 100 * time.Millisecond},
		{"a burst that is not above", []int64{3100}, 12, 0},
		{"a burst before the step, half of whose time is after it", []int64{2950}, 13, 50 * time.Millisecond},
		{"a burst whose time passes the 5 s", []int64{7980}, 13, 20 * time.Millisecond},
		{"a burst after the 5 s", []int64{8000}, 13, 0},
		{"two bursts after a step", []int64{3100, 5000}, 13, 200 * time.Millisecond},
		{"one burst and two", []int64{3100, 12100, 14000}, 13, 200 * time.Millisecond},
		{"two bursts and one", []int64{3100, 4000, 14000}, 13, 200 * time.Millisecond},
		{"a burst in the last bucket", []int64{12000, 16900}, 13, 200 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := NewScorer(scenario)
			for _, b := range test.bursts {
				for range test.events {
					s.Add(at(b*ms), kept)
				}
			}
			if got := s.Score().Above; got != test.above {
				t.Errorf("above for %v, want %v", got, test.above)
			}
		})
	}
}

func TestTwoStepsThatAreNearBothHaveTheTimeBetween(t *testing.T) {
	scenario := small()
	scenario.Steps = []time.Duration{3 * time.Second, 4 * time.Second}
	s := NewScorer(scenario)
	for _, b := range []int64{3100, 5000} {
		for range 13 {
			s.Add(at(b*ms), kept)
		}
	}
	if got := s.Score().Above; got != 200*time.Millisecond {
		t.Errorf("above for %v, want 200ms", got)
	}
}

func TestUtilisationIsOfWhatTheBudgetAllows(t *testing.T) {
	s := NewScorer(small())
	add := func(second int64, seen, keep int) {
		for i := range seen {
			e := at(second*1000*ms + int64(i)*ms)
			if i < keep {
				s.Add(e, Outcome{true, float64(seen) / float64(keep)})
			} else {
				s.Add(e, dropped)
			}
		}
	}
	add(2, 40, 40)  // 40 of 40
	add(3, 400, 50) // 50 of 100
	add(4, 80, 10)  // 10 of 80
	same(t, "the utilisation", s.Score().Utilisation, 100.0/220)
}

func TestALastPartOfASecondIsNotInTheUtilisation(t *testing.T) {
	scenario := small()
	scenario.Duration = 3500 * time.Millisecond
	s := NewScorer(scenario)
	s.Add(at(2000*ms), kept)
	s.Add(at(2001*ms), dropped)
	s.Add(at(3200*ms), dropped)
	got := s.Score()
	same(t, "the utilisation", got.Utilisation, 0.5)
	same(t, "the error", got.Error, 0.5)
	if got.Seen != 3 {
		t.Errorf("%d seen, want 3", got.Seen)
	}
}

func TestSharesOfCriticalEventsAndOfGroups(t *testing.T) {
	s := NewScorer(small())
	add := func(group uint32, p event.Priority, o Outcome) {
		s.Add(Event{At: 2000 * ms, Group: group, Kind: event.ProcessExit, Priority: p}, o)
	}
	add(0, event.Critical, kept) // the host is no group
	add(1, event.Critical, dropped)
	add(1, event.Info, dropped)
	add(1, event.Error, kept)
	add(1, event.Info, kept)
	add(2, event.Critical, dropped)
	add(3, event.Info, dropped)
	add(70, event.Critical, kept)
	add(70, event.Critical, kept)
	got := s.Score()
	same(t, "the share of critical events", got.Critical, 3.0/5)
	same(t, "the share of groups", got.Covered, 2.0/4)
}

func TestAGroupIsCoveredByWhatCameAfterTheWarmUp(t *testing.T) {
	s := NewScorer(small())
	s.Add(at(500*ms), kept)
	s.Add(at(1500*ms), dropped)
	same(t, "the share of groups", s.Score().Covered, 0)
}

// Of attribute 0 there are 4 events, estimated at 6; of attribute 2 one, at 0; in the next
// second 2, at 1.5; and 3 of another class, at 3.
func TestTheErrorIsOfTheTotalsOfAttributes(t *testing.T) {
	s := NewScorer(small())
	add := func(ns int64, group uint32, attribute uint16, o Outcome) {
		e := at(ns)
		e.Group, e.Attribute = group, attribute
		s.Add(e, o)
	}
	add(2000*ms, 1, 0, Outcome{true, 3})
	add(2100*ms, 1, 0, Outcome{true, 3})
	add(2200*ms, 1, 0, dropped)
	add(2300*ms, 1, 2, dropped)
	add(2999*ms, 1, 0, dropped)
	add(3000*ms, 1, 0, Outcome{true, 1.5})
	add(3100*ms, 1, 0, dropped)
	for range 3 {
		add(3200*ms, 2, 1, kept)
	}
	got := s.Score()
	same(t, "the error", got.Error, (2+1+0.5+0)/10)
	same(t, "the bias", got.Bias, (6+1.5+3)/10-1)
}

// Of a class of which 30 events were kept with weight 2 the interval is 60 ± 1.96 · √60,
// which is 15.18.
func TestAnIntervalHoldsTheTruthOrNot(t *testing.T) {
	for _, test := range []struct {
		name      string
		seen      int
		kept      int
		weight    float64
		intervals uint64
		hits      uint64
	}{
		{"the truth is the estimate", 60, 30, 2, 1, 1},
		{"the truth is at the upper end", 75, 30, 2, 1, 1},
		{"the truth is beyond the upper end", 76, 30, 2, 1, 0},
		{"the truth is at the lower end", 45, 30, 2, 1, 1},
		{"the truth is beyond the lower end", 44, 30, 2, 1, 0},
		{"too few were kept", 60, 29, 2, 0, 0},
		{"all were kept", 30, 30, 1, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := NewScorer(small())
			for i := range test.seen {
				if i < test.kept {
					s.Add(at(2000*ms), Outcome{true, test.weight})
				} else {
					s.Add(at(2000*ms), dropped)
				}
			}
			if got := s.Score(); got.Intervals != test.intervals || got.IntervalsHit != test.hits {
				t.Errorf("%d intervals of which %d hit, want %d and %d", got.Intervals, got.IntervalsHit, test.intervals, test.hits)
			}
		})
	}
}

func TestAnIntervalIsOfOneSecondAndClass(t *testing.T) {
	s := NewScorer(small())
	for i := range int64(60) {
		s.Add(at(2750*ms+i*ms*500/60), Outcome{true, 2}) // 30 in each of two seconds
	}
	for i := range uint32(60) {
		e := at(5000 * ms)
		e.Group = 1 + i%3 // 20 each
		s.Add(e, Outcome{true, 2})
	}
	// 30 kept and seen, estimated at 60 ± 15.18: both intervals miss.
	if got := s.Score(); got.Intervals != 2 || got.IntervalsHit != 0 {
		t.Errorf("%d intervals of which %d hit, want 2 and 0", got.Intervals, got.IntervalsHit)
	}
}

func TestOfAnHonestDraw95InAHundredIntervalsHoldTheTruth(t *testing.T) {
	scenario, _ := Find("S1")
	s := NewScorer(scenario)
	rng := rand.New(rand.NewPCG(1, 2))
	const p = 0.1
	for e := range scenario.Events(1) {
		s.Add(e, Outcome{rng.Float64() < p, 1 / p})
	}
	got := s.Score()
	if hit := float64(got.IntervalsHit) / float64(got.Intervals); math.Abs(hit-0.95) > 0.02 {
		t.Errorf("%v of %d intervals hit", hit, got.Intervals)
	}
	for _, near := range []struct {
		what               string
		got, want, allowed float64
	}{
		{"the bias", got.Bias, 0, 0.01},
		{"the utilisation", got.Utilisation, 1, 0.01}, // of 100,050 events/s
		{"the share of critical events", got.Critical, p, 0.03},
		{"the most in a second", got.MaxSecond, 1, 0.05},
	} {
		if math.Abs(near.got-near.want) > near.allowed {
			t.Errorf("%s is %v, want about %v", near.what, near.got, near.want)
		}
	}
}

func TestAScoreMayBeTakenTwice(t *testing.T) {
	s := NewScorer(small())
	for i := range int64(100) {
		s.Add(at(2000*ms+i*ms), Outcome{i%3 == 0, 3})
	}
	if first, again := s.Score(), s.Score(); first != again {
		t.Errorf("%+v, then %+v", first, again)
	}
}

func TestAddingAllocatesNothingForEachEvent(t *testing.T) {
	s := NewScorer(Scenario{Duration: time.Hour, Budget: budget})
	var ns int64
	add := func() {
		ns += ms / 2
		e := at(ns)
		e.Group, e.Attribute = uint32(ns%50), uint16(ns%8)
		s.Add(e, Outcome{ns%3 == 0, 3})
	}
	for range 10_000 {
		add()
	}
	if n := testing.AllocsPerRun(10_000, add); n != 0 {
		t.Errorf("an event allocates %v times", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, scenario := range Scenarios() {
		b.Run(scenario.Name, func(b *testing.B) {
			const most = 1 << 21
			events := make([]Event, 0, most)
			for e := range scenario.Events(1) {
				if events = append(events, e); len(events) == most {
					break
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; {
				s := NewScorer(scenario)
				for i := range events {
					s.Add(events[i], Outcome{i&7 == 0, 8})
					if n++; n >= b.N {
						break
					}
				}
			}
		})
	}
}
