package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func documented() Config {
	return Config{AboveMaxRate: 0.20, AboveMinRate: 0.01, Smoothing: time.Second, Hysteresis: 0.1}
}

// report of a load in events/s over half a second.
func report(load float64) *protov1.Report {
	return &protov1.Report{IntervalNano: int64(500 * time.Millisecond), Classes: []*protov1.ClassLoad{
		{Class: &protov1.Class{Kind: "process.exec"}, Seen: uint64(math.Ceil(load / 2)), Filtered: 0},
		{Class: &protov1.Class{Kind: "file.open"}, Seen: 1_000_000, Filtered: 1_000_000},
	}}
}

// started gives a sampler and a function that answers a report with the
// probabilities in force.
func started(t *testing.T, c Config) (rates func(*protov1.Report) (other, critical float64, changed bool)) {
	t.Helper()
	s := newThreshold(c)
	inForce, err := s.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return func(r *protov1.Report) (float64, float64, bool) {
		p, err := s.Plan(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if p != nil {
			if p.Sequence <= inForce.Sequence {
				t.Errorf("sequence %d after %d", p.Sequence, inForce.Sequence)
			}
			inForce = p
		}
		rule := inForce.Rules[0]
		if rule.Match.GetPriority() != "critical" || rule.Match.Kind != nil || rule.Match.Group != nil {
			t.Fatalf("the first rule matches %v", rule.Match)
		}
		return inForce.GetDefaultProbability(), rule.GetProbability(), p != nil
	}
}

func TestTheDocumentedTableHolds(t *testing.T) {
	for _, tt := range []struct {
		load, rate float64
	}{
		{0, 1}, {998, 1},
		{1_000, 0.8}, {9_998, 0.8},
		{10_000, 0.5}, {49_998, 0.5},
		{50_000, 0.20},
		{158_114, 0.105}, // √10 times the last level: half way
		{500_000, 0.01}, {10_000_000, 0.01},
	} {
		t.Run(fmt.Sprintf("%.0f events a second keep %v", tt.load, tt.rate), func(t *testing.T) {
			rate, critical, _ := started(t, documented())(report(tt.load))
			if math.Abs(rate-tt.rate) > 0.001 {
				t.Errorf("kept %v", rate)
			}
			if critical != 1 {
				t.Errorf("critical events kept with %v", critical)
			}
		})
	}
}

func TestALoadAtABoundDoesNotFlap(t *testing.T) {
	rates := started(t, documented())
	changes := 0
	for i := range 1000 {
		rate, _, changed := rates(report(1000 + 60*math.Sin(float64(i))))
		if changed {
			changes++
		}
		if i > 10 && rate != 0.8 {
			t.Fatalf("report %d: %v", i, rate)
		}
	}
	if changes != 1 {
		t.Errorf("%d changes", changes)
	}
	for range 20 {
		rates(report(850))
	}
	if rate, _, _ := rates(report(850)); rate != 1 {
		t.Errorf("well below the bound it keeps %v", rate)
	}
}

func TestABurstCountsWithItsFirstReport(t *testing.T) {
	rates := started(t, documented())
	for range 10 {
		rates(report(100))
	}
	if rate, _, _ := rates(report(600_000)); rate != 0.01 {
		t.Errorf("kept %v", rate)
	}
	reports := 0
	for ; reports < 100; reports++ {
		if rate, _, _ := rates(report(100)); rate == 1 {
			break
		}
	}
	// The documents ask for an adaptation within 5 s, of reports of half a second.
	if limit := 14; reports < 2 || reports > limit {
		t.Errorf("everything kept again after %d reports", reports)
	}
}

func TestReportsThatSayNothingChangeNothing(t *testing.T) {
	rates := started(t, documented())
	if rate, _, _ := rates(report(20_000)); rate != 0.5 {
		t.Fatal(rate)
	}
	for name, r := range map[string]*protov1.Report{
		"no time":       {Classes: []*protov1.ClassLoad{{Seen: 1 << 40}}},
		"negative time": {IntervalNano: -5, Classes: []*protov1.ClassLoad{{Seen: 1 << 40}}},
		"the same":      report(20_000),
		"filtered above seen at an edge": {IntervalNano: int64(500 * time.Millisecond), Classes: []*protov1.ClassLoad{
			{Seen: 10_000}, {Seen: 3, Filtered: 5}}},
	} {
		if rate, _, changed := rates(r); changed || rate != 0.5 {
			t.Errorf("%s: rate %v, changed %v", name, rate, changed)
		}
	}
}

func TestAStreamBeginsAnew(t *testing.T) {
	s := newThreshold(documented())
	for range 2 {
		p, err := s.Start(t.Context())
		if err != nil || p.GetDefaultProbability() != 1 || p.Rules[0].GetProbability() != 1 {
			t.Fatal(p, err)
		}
		if p, err = s.Plan(t.Context(), report(1_000_000)); err != nil || p.GetDefaultProbability() != 0.01 || p.Reason != "critical load: 1,000,000 events/s" {
			t.Fatal(p, err)
		}
	}
}

// Whatever the table, which is valid, and whatever the loads: a rate is within
// the table's, critical events are kept, a steady load is answered with a rate
// that falls with it, and it settles.
func TestPropertiesOfAnyTable(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := anyTable(r)
		if ds := validateThreshold(c); ds.HasErrors() {
			t.Fatalf("seed %d: %v", seed, ds)
		}
		rates := started(t, c)
		for range 50 {
			rate, critical, _ := rates(report(math.Exp(r.Float64() * 16)))
			if rate < c.AboveMinRate-1e-12 || rate > c.Levels[0].Rate || critical != 1 || math.IsNaN(rate) {
				t.Fatalf("seed %d: rate %v, critical %v", seed, rate, critical)
			}
		}
		last := math.Inf(1)
		for load := 1.0; load < 1e7; load *= 1 + r.Float64() {
			fresh := started(t, c)
			rate, _, _ := fresh(report(load))
			if rate > last+1e-12 {
				t.Fatalf("seed %d: a load of %v keeps %v, a smaller one %v", seed, load, rate, last)
			}
			last = rate
			for range 5 {
				if again, _, changed := fresh(report(load)); changed || again != rate {
					t.Fatalf("seed %d: a steady load of %v does not settle", seed, load)
				}
			}
		}
	}
}

func anyTable(r *rand.Rand) Config {
	c := Config{Smoothing: time.Duration(r.IntN(3000)) * time.Millisecond, Hysteresis: r.Float64() * 0.9}
	below, rate := 0.0, 1.0
	for range 1 + r.IntN(6) {
		below += 1 + r.Float64()*20_000
		c.Levels = append(c.Levels, Level{Below: below, Rate: rate})
		rate *= 0.1 + 0.85*r.Float64()
	}
	c.AboveMaxRate = rate
	c.AboveMinRate = rate * r.Float64()
	return c
}

func TestMistakesAreShownWhereTheyAre(t *testing.T) {
	with := func(change func(*Config)) Config {
		c := documented()
		c.Levels = defaultLevels()
		change(&c)
		return c
	}
	for _, tt := range []struct {
		name   string
		config Config
		want   []string
	}{
		{"the default table is right", documented(), nil},
		{"one level is enough", with(func(c *Config) { c.Levels = []Level{{100, 0.3}} }), nil},
		{"levels that do not ascend", with(func(c *Config) { c.Levels[1].Below = 1000 }), []string{"level[1].below: levels must ascend"}},
		{"rates that rise", with(func(c *Config) { c.Levels[2].Rate = 0.9 }), []string{"level[2].rate: rates must fall"}},
		{"rates that stay", with(func(c *Config) { c.Levels[1].Rate = 1 }), []string{"level[1].rate: rates must fall"}},
		{"both at once", with(func(c *Config) { c.Levels[1] = Level{10, 1} }), []string{"level[1].below: levels must ascend", "level[1].rate: rates must fall"}},
		{"above the last level more than in it", with(func(c *Config) { c.AboveMaxRate = 0.6 }), []string{"above_max_rate: rates must fall"}},
		{"the smallest rate is not the smallest", with(func(c *Config) { c.AboveMinRate = 0.3 }), []string{"above_min_rate: rates must fall"}},
		{"no number", with(func(c *Config) { c.Levels[0] = Level{math.NaN(), math.NaN()} }), []string{"level[0].below: not a load", "level[0].rate: not a rate"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, d := range validateThreshold(tt.config) {
				got = append(got, d.Path.String()+": "+d.Summary)
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestFixedKeepsOneRate(t *testing.T) {
	for _, rate := range []float64{0, 0.25, 1} {
		p, err := fixedSampler{rate}.Start(t.Context())
		if err != nil || p.DefaultProbability == nil || *p.DefaultProbability != rate || p.Rules[0].GetProbability() != 1 {
			t.Errorf("%v: %v, %v", rate, p, err)
		}
		if p, err := (fixedSampler{rate}).Plan(t.Context(), report(1e6)); p != nil || err != nil {
			t.Errorf("%v: %v, %v", rate, p, err)
		}
	}
	if ds := validateFixed(FixedConfig{Rate: 1.5}); len(ds) != 1 || ds[0].Path.String() != "rate" {
		t.Error(ds)
	}
	if ds := validateFixed(FixedConfig{Rate: 0}); len(ds) != 0 {
		t.Error(ds)
	}
}
