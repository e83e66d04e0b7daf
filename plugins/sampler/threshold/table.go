package main

import "math"

// above is how many times the last level's bound the smallest rate is reached
// at.
const above = 10

// table turns a load in events/s into the share to keep. The zero value of the
// position is the lowest level.
//
// Above the last level L the share falls log-linearly: at a load of x·L,
// 1 ≤ x ≤ 10, it is max − (max − min)·log10(x), so that each doubling of the load
// takes the same off it. That reaches min at 10·L and stays there.
type table struct {
	levels     []Level
	max, min   float64
	hysteresis float64

	at int // the level that holds; len(levels) is above all
}

// rate moves to the level of a load and gives its share. Up it goes as soon as
// a bound is reached; down only when the load is below the bound by the
// hysteresis, so that a load at a bound does not flap.
func (t *table) rate(load float64) float64 {
	for t.at < len(t.levels) && load >= t.levels[t.at].Below {
		t.at++
	}
	for t.at > 0 && load < t.levels[t.at-1].Below*(1-t.hysteresis) {
		t.at--
	}
	if t.at < len(t.levels) {
		return t.levels[t.at].Rate
	}
	x := load / t.levels[len(t.levels)-1].Below
	if x >= above {
		return t.min
	}
	// x is below 1 where the hysteresis still holds this level.
	return t.max - (t.max-t.min)*math.Log10(max(1, x))/math.Log10(above)
}

// name of the level, for the operator.
func (t *table) name() string {
	switch {
	case t.at == 0:
		return "low load"
	case t.at == len(t.levels):
		return "critical load"
	case t.at == len(t.levels)-1:
		return "high load"
	}
	return "medium load"
}
