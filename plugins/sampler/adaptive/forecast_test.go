package main

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// poisson draws a number of events.
func poisson(r *rand.Rand, mean float64) float64 {
	return math.Round(max(mean+r.NormFloat64()*math.Sqrt(mean), 0))
}

// hourly is 10,000 events/s, and five times that in the first tenth of a season.
func hourly(at, season time.Duration) float64 {
	if at%season < season/10 {
		return 50_000
	}
	return 10_000
}

// told has a forecaster hear loads in events/s, one each 250 ms, of one kind. From the
// clock on each report stands at its time.
func told(t *testing.T, season, clock time.Duration, n int, load func(i int) float64) *forecaster {
	t.Helper()
	f := newForecaster(Config{Interval: defaultInterval, Season: season})
	l := newLearned()
	for i := range n {
		l.hear(reported("process.exec", "info", load(i)/4), defaultInterval)
		if clock > 0 {
			clock += defaultInterval
		}
		f.hear(l, clock, defaultInterval)
		for _, s := range f.series {
			if s != nil && !(s.next >= 0 && s.next <= math.MaxFloat64) {
				t.Fatalf("report %d: %v is forecast", i, s.next)
			}
		}
	}
	return f
}

// reported is a report of one class.
func reported(kind, priority string, n float64) *protov1.Report {
	return &protov1.Report{IntervalNano: int64(defaultInterval), BudgetEventsPerSecond: 1000, RowCapacity: 100, Classes: []*protov1.ClassLoad{
		{Class: &protov1.Class{Kind: kind, Priority: priority}, Seen: uint64(n), Kept: uint64(n), Probability: 1},
	}}
}

func TestALevelAndATrendFollowALoad(t *testing.T) {
	h := holt{}
	h.hear(1000, 30)
	if h.next() != 1000 {
		t.Errorf("after one load of 1000 %v is forecast", h.next())
	}
	// 20 too many: three tenths of that are the level's, and a tenth of those the trend's.
	h.hear(1020, 30)
	if want := 1006 + 0.98*0.6; math.Abs(h.next()-want) > 1e-9 {
		t.Errorf("after 1000 and 1020 %v is forecast, want %v", h.next(), want)
	}
	h.hear(50_000, 30) // no chance
	if h.next() != 50_000 {
		t.Errorf("after a step to 50000 %v is forecast", h.next())
	}
	for i := range 100 {
		h.hear(50_000+10*float64(i), 200)
	}
	if want := 51_000.0; math.Abs(h.next()-want) > 10 {
		t.Errorf("of a load that rises by 10 each time %v is forecast, want %v", h.next(), want)
	}
}

// In each of these loads the forecaster hears eight minutes of 250 ms reports.
func TestForecastsAreUsedWhereTheyAreBetterThanTheLastInterval(t *testing.T) {
	const (
		season = time.Minute
		n      = 1920
	)
	for _, test := range []struct {
		name   string
		season time.Duration
		load   func(random *rand.Rand) func(i int) float64
		used   bool
		most   float64 // error, of the naive one's
	}{
		{"events that come by chance", 0, func(random *rand.Rand) func(int) float64 {
			return func(int) float64 { return 4 * poisson(random, 2500) }
		}, true, 0.85},
		{"a load that varies much", 0, func(random *rand.Rand) func(int) float64 {
			return func(int) float64 { return 10_000 * math.Exp(0.2*random.NormFloat64()) }
		}, true, 0.9},
		{"a season", season, func(random *rand.Rand) func(int) float64 {
			return func(i int) float64 {
				return 4 * poisson(random, hourly(time.Duration(i)*defaultInterval, season)/4)
			}
		}, true, 0.75},
		{"a season of spikes", season, func(random *rand.Rand) func(int) float64 {
			return func(i int) float64 {
				if i%240 == 77 {
					return 4 * poisson(random, 200_000)
				}
				return 4 * poisson(random, 2500)
			}
		}, true, 0.8},
		{"a wave", season, func(random *rand.Rand) func(int) float64 {
			return func(i int) float64 { return 4 * poisson(random, 2500*(1+0.8*math.Sin(float64(i)/240*2*math.Pi))) }
		}, true, 0.85},
		{"a season on which a step was put", season, func(random *rand.Rand) func(int) float64 {
			return func(i int) float64 {
				load := hourly(time.Duration(i)*defaultInterval, season)
				if i > 1300 {
					load += 100_000
				}
				return 4 * poisson(random, load/4)
			}
		}, true, 0.9},
		{"a step up and down", 0, func(random *rand.Rand) func(int) float64 {
			return func(i int) float64 {
				if i > n-120 && i < n-60 {
					return 4 * poisson(random, 250_000)
				}
				return 4 * poisson(random, 2500)
			}
		}, true, 0.9},
		{"a random walk", 0, walk, false, 2},
		{"a random walk in which a season is looked for", season, walk, false, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			for seed := range uint64(10) {
				f := told(t, test.season, time.Hour+17*time.Second, n, test.load(rand.New(rand.NewPCG(seed, 1))))
				own, naive := stat.Mean(f.record.own, nil), stat.Mean(f.record.naive, nil)
				if f.record.good != test.used || own > test.most*naive {
					t.Errorf("seed %d: %v; want %v of the naive error at most, and used: %v", seed, &f.record, test.most, test.used)
				}
			}
		})
	}
}

func walk(random *rand.Rand) func(i int) float64 {
	at := 10_000.0
	return func(int) float64 {
		at = max(at*math.Exp(0.05*random.NormFloat64()), 1000)
		return at
	}
}

func TestAFewReportsAreNoForecast(t *testing.T) {
	f := told(t, 0, 0, enough-1, func(i int) float64 { return 1000 })
	if f.record.good || f.record.String() != "no forecast yet" {
		t.Errorf("%v", &f.record)
	}
	if f = told(t, 0, 0, 1000, func(i int) float64 { return 0 }); f.record.good || len(f.record.own) > 0 {
		t.Errorf("of nothing: %v", &f.record)
	}
	if f = told(t, 0, 0, 1000, func(i int) float64 { return 1000 }); f.record.good {
		t.Errorf("of what never changes the last interval says all: %v", &f.record)
	}
}

// spiky is a predictive that has heard ten seasons of 5 s, which begin with a second of
// ten times the load, and hears the reports up to a part of the next.
func spiky(t *testing.T, reports int) (*predictive, *protov1.Policy) {
	t.Helper()
	random := rand.New(rand.NewPCG(5, 6))
	p := newPredictive(Config{Exponent: 0.5, Interval: defaultInterval, Season: 5 * time.Second})
	if _, err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var last *protov1.Policy
	for i := range 10*20 + reports {
		n := 1000.0
		if i%20 < 4 {
			n = 10_000
		}
		r := reported("file.open", "debug", poisson(random, n))
		r.TimeUnixNano = int64(time.Hour) + int64(i+1)*int64(defaultInterval)
		if told := planned(t, p, r); told != nil {
			last = told
		}
	}
	return p, last
}

func TestAPlanIsForTheLoadToCome(t *testing.T) {
	_, calm := spiky(t, 19)
	_, before := spiky(t, 20)
	_, after := spiky(t, 24)
	near := func(p *protov1.Policy, want float64) bool {
		return math.Abs(p.GetRules()[0].GetProbability()/want-1) < 0.1
	}
	if !near(calm, 990.0/4000) || !near(before, 990.0/40_000) || !near(after, 990.0/4000) {
		t.Errorf("two reports before the load rises %v,\none before %v,\nand when it will have fallen %v", calm, before, after)
	}
	if e := before.GetRules()[0].GetExpectedEventsPerSecond(); math.Abs(e/40_000-1) > 0.1 {
		t.Errorf("%v events/s are expected, want 40000", e)
	}
	if !strings.Contains(before.GetReason(), "; forecast off by ") || !strings.HasSuffix(before.GetReason(), " %)") {
		t.Errorf("the reason is %q", before.GetReason())
	}
}

func TestWithoutAGoodForecastThePlanIsTheAdaptiveOne(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	c := Config{Exponent: 0.5, Interval: defaultInterval}
	p, a := newPredictive(c), newSampler(c)
	at := walk(random)
	var reason string
	for range 500 {
		r := reported("file.open", "debug", 10*at(0))
		told, want := planned(t, p, r), planned(t, a, r)
		if (told == nil) != (want == nil) || told != nil && told.GetRules()[0].GetProbability() != want.GetRules()[0].GetProbability() {
			t.Fatalf("%v is told, want %v", told, want)
		}
		if told != nil {
			reason = told.GetReason()
		}
	}
	if !strings.HasSuffix(reason, " and not used") {
		t.Errorf("the reason is %q", reason)
	}
}

// The forecasts are good until the load begins to walk, and that is told even where the
// plan is the same.
func TestItIsToldWhenForecastsAreNoLongerUsed(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	p := newPredictive(Config{Exponent: 0.5, Interval: defaultInterval})
	at := walk(random)
	var said []bool
	for i := range 1500 {
		n := poisson(random, 1000)
		if i > 500 {
			n = at(0)
		}
		used := p.used
		told := planned(t, p, reported("file.open", "debug", n))
		if p.used != used {
			if told == nil || strings.Contains(told.GetReason(), "not used") == p.used {
				t.Fatalf("report %d: it is used: %v, and told is %v", i, p.used, told)
			}
			said = append(said, p.used)
		}
	}
	if len(said) != 2 || !said[0] || said[1] {
		t.Errorf("forecasts are used and not, in turn: %v", said)
	}
}

// The error of an interval is a share of its events, over all kinds: what comes of one
// kind instead of another is wrong twice.
func TestTheErrorIsOfAllKinds(t *testing.T) {
	f := newForecaster(Config{Interval: time.Second})
	l := newLearned()
	for i := range 2 {
		a, b := uint64(100), uint64(300)
		if i == 1 {
			a, b = 200, 200
		}
		l.hear(report(load("file.open debug", a), load("file.open debug stranger", 0), load("process.exec info", b)), time.Second)
		f.hear(l, 0, time.Second)
	}
	if got := f.record.naive[1]; got != 0.5 {
		t.Errorf("the naive error is %v, want 200 of 400 events", got)
	}
	if f.record.naive[0] != 1 || f.record.own[0] != 1 {
		t.Errorf("the first forecast is of nothing, and off by %v and %v", f.record.naive[0], f.record.own[0])
	}
}

func TestFactorsAreBounded(t *testing.T) {
	f := newForecaster(Config{Interval: time.Second})
	l := newLearned()
	l.hear(report(load("file.open debug", 100), load("process.exec info", 100), load("process.exit info", 0)), time.Second)
	f.hear(l, 0, time.Second)
	f.series[0].next, f.series[1].next = 1e6, 0
	if got := f.factors(l); got[0] != 10 || got[1] != 0.1 || got[2] != 1 {
		t.Errorf("the factors are %v", got)
	}
}
