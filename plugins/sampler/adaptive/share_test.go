package main

import (
	"math"
	"math/rand/v2"
	"testing"
)

// loads of classes, in events/s, each of a priority.
type loads []struct {
	priority priority
	load     float64
}

func (l loads) shares() []share {
	var out []share
	for _, c := range l {
		out = append(out, share{priority: c.priority, load: c.load})
	}
	return out
}

// The figures are calculated by hand. Weights are the square root of the load, times 1,
// 1.5, 2 and 3.
func TestABudgetIsDividedByWeight(t *testing.T) {
	for _, test := range []struct {
		name   string
		loads  loads
		config Config
		budget float64
		want   []float64 // events/s
	}{
		{"nothing comes", loads{{debug, 0}}, Config{Exponent: 0.5}, 10, []float64{0}},
		{"there is room for all", loads{{debug, 60}, {fault, 40}}, Config{Exponent: 0.5}, 100, []float64{60, 40}},
		{"a class of a hundred times the load gets ten times as much", loads{{debug, 10_000}, {debug, 100}}, Config{Exponent: 0.5}, 110, []float64{100, 10}},
		{"priorities weigh 1, 1.5, 2 and 3", loads{{debug, 100}, {info, 100}, {warning, 100}, {fault, 100}}, Config{Exponent: 0.5}, 75, []float64{10, 15, 20, 30}},
		// The weights are 6, 30 and 60. The first has less than its 6 of 96 parts: the
		// others share what is left, 90.
		{"what one has no use for is the others'", loads{{fault, 4}, {debug, 900}, {debug, 3600}}, Config{Exponent: 0.5}, 94, []float64{4, 30, 60}},
		// The weights are 100, 3 and 15. At first the third would get 24.9, and only when
		// the second has left the rest of its 5 it has all of its 25.
		{"one after the other is satisfied", loads{{debug, 10_000}, {fault, 1}, {fault, 25}}, Config{Exponent: 0.5}, 196, []float64{170, 1, 25}},
		{"with an exponent of 1 all keep the same share", loads{{debug, 800}, {debug, 200}}, Config{Exponent: 1}, 100, []float64{80, 20}},
		{"with an exponent of 0 all keep the same number", loads{{debug, 800}, {debug, 200}}, Config{}, 100, []float64{50, 50}},
		{"no class falls below the least rate", loads{{debug, 10_000}, {debug, 100}}, Config{Exponent: 0.5, MinRate: 0.02}, 110, []float64{200, 10}},
		{"nothing is left: a trace of each", loads{{debug, 1e6}, {fault, 1e6}}, Config{Exponent: 0.5}, 0, []float64{1, 1}},
		{"no bound at all", loads{{debug, 1e6}}, Config{Exponent: 0.5}, math.Inf(1), []float64{1e6}},
	} {
		t.Run(test.name, func(t *testing.T) {
			shares := test.loads.shares()
			divide(shares, test.config, test.budget, false)
			same(t, shares, test.want)
		})
	}
}

func same(t *testing.T, shares []share, want []float64) {
	t.Helper()
	for i, s := range shares {
		if got := s.probability * s.load; math.Abs(got-want[i]) > 1e-6*max(want[i], 1) {
			t.Errorf("class %d gets %v of %v events/s, want %v", i, got, s.load, want[i])
		}
	}
}

func TestBandsKeepEachPriorityToItsShare(t *testing.T) {
	all := loads{{debug, 1000}, {info, 1000}, {warning, 1000}, {fault, 1000}}
	for _, test := range []struct {
		name   string
		loads  loads
		budget float64
		want   []float64
	}{
		// The lower bounds come to 10, 100, 500 and 900: 1510 in all.
		{"the lower bounds just fit", all, 1510, []float64{10, 100, 500, 900}},
		// 200, of which debug and info have 1 and 1.5 parts.
		{"what is left is shared by weight", all, 1600, []float64{80, 120, 500, 900}},
		{"the upper bounds leave a part of the budget unused", all, 3000, []float64{100, 500, 800, 1000}},
		{"debug has no room", all, 1505, []float64{5, 100, 500, 900}},
		// Of what is left a hundredth of the budget is for those below, 1 and 1.5 parts.
		{"the warnings share what is left", all, 1000, []float64{4, 6, 90, 900}},
		{"errors alone are too many", loads{{debug, 1e6}, {info, 0}, {warning, 0}, {fault, 10_000}}, 1000, []float64{10, 0, 0, 990}},
	} {
		t.Run(test.name, func(t *testing.T) {
			shares := test.loads.shares()
			divide(shares, Config{Exponent: 0.5}, test.budget, true)
			same(t, shares, test.want)
		})
	}
}

// Whatever comes, the parts come to the budget, and keep to their bounds.
func TestPartsComeToTheBudget(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		var shares []share
		total := 0.0
		for range 1 + random.IntN(300) {
			s := share{priority: priority(random.IntN(int(priorities))), load: math.Exp(40*random.Float64() - 10)}
			if random.IntN(5) == 0 {
				s.load = 0
			}
			total += s.load
			shares = append(shares, s)
		}
		budget := total * math.Exp(-15*random.Float64())
		banded := random.IntN(2) == 0
		divide(shares, Config{Exponent: random.Float64()}, budget, banded)
		kept, traces := 0.0, 0.0
		for _, s := range shares {
			if !(s.probability >= rarest && s.probability <= 1) {
				t.Fatalf("a probability is %v", s.probability)
			}
			kept += s.probability * s.load
			traces += rarest * s.load
			if b := bands[s.priority]; banded && s.load > 0 && s.probability > b.most+1e-9 {
				t.Fatalf("%.3f of a priority is kept that may have %v", s.probability, b.most)
			}
		}
		if kept > budget*1.000001+traces {
			t.Fatalf("%v is planned of a budget of %v", kept, budget)
		}
		if !banded && kept < budget*0.999999 {
			t.Fatalf("%v is planned of a budget of %v, and %v come", kept, budget, total)
		}
	}
}
