package event

import (
	"math"
	"testing"
)

func TestNamesOfKindsAndPrioritiesAreTheirOwnInverse(t *testing.T) {
	seen := map[string]bool{}
	for k := range Kinds {
		got, ok := ParseKind(k.String())
		if !ok || got != k || seen[k.String()] {
			t.Errorf("kind %d: name %q, parsed %d, %v", k, k, got, ok)
		}
		seen[k.String()] = true
	}
	for p := range Priorities {
		if got, ok := ParsePriority(p.String()); !ok || got != p {
			t.Errorf("priority %d: name %q, parsed %d, %v", p, p, got, ok)
		}
	}
	if _, ok := ParseKind("unknown"); ok {
		t.Error("a kind that is none was parsed")
	}
}

func TestRowsAndClassesAreOneToOne(t *testing.T) {
	for row := range PooledRows {
		k, p := RowClass(row)
		if k >= KernelKinds || p >= Priorities || Row(k, p) != row {
			t.Errorf("row %d is class %v %v, whose row is %d", row, k, p, Row(k, p))
		}
	}
}

func TestAWeightIsOneOverTheProbability(t *testing.T) {
	for _, p := range []float64{1, 0.8, 0.5, 0.1, 0.01, 1e-6} {
		e := Event{Threshold: Threshold(p)}
		if got := e.Weight() * p; math.Abs(got-1) > 1e-9 {
			t.Errorf("p %v: weight %v", p, e.Weight())
		}
	}
	for _, p := range []float64{0, -1, math.NaN()} {
		if got := Threshold(p); got != 1<<56 {
			t.Errorf("p %v: threshold %x keeps something", p, got)
		}
	}
	if Threshold(2) != 0 {
		t.Error("a probability above 1 does not keep everything")
	}
}
