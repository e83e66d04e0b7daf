// Package valve holds the events of programs to a budget, as bpf/decide.h does those of
// the kernel.
//
// Why it exists: a program that asks sdk/client whether to keep an event can't wait for
// the daemon each time, so both decide, by the same rule. A Valve owns one number for
// the budget and one for the reserve of critical events: the time until which each is
// spent. Time itself refills them (GCRA, the generic cell rate algorithm of ATM Forum
// af-tm-0056). It reads no clock and draws no random number, and must never be safe for
// use by several goroutines: who owns it has a lock.
package valve

import "math"

const (
	// depth is what can be saved up, in nanoseconds of budget.
	depth        = 50e6
	reserveDepth = 128e6
	// halving is how much that is spent before its time halves the share.
	halving = 1 << 22
	// Rarest is the least share that is not 0.
	Rarest = 1.0 / (1 << 24)
)

// Valve of one budget. The zero value has no bound.
type Valve struct {
	cost, reserveCost float64 // of an event, in nanoseconds; 0: no bound
	paid, reservePaid float64 // until when it is spent
}

// Set sets the budget in events a second, 0 for no bound, and the part of it, 0 to 1,
// in which critical events are kept for sure. What was spent stays spent.
func (v *Valve) Set(perSecond, reserve float64) {
	v.cost, v.reserveCost = 0, 0
	if perSecond > 0 {
		v.cost = 1e9 / perSecond
		v.reserveCost = v.cost / min(max(reserve, 1e-6), 1)
	}
}

// Share is the probability with which an event of the probability p, by the policy, is
// kept at a time in nanoseconds, and pays for it. Keep the event if a random number in
// [0, 1) is below it; its weight is then 1 over it. Since it depends on what came before
// alone, and not on what was drawn, that weight is unbiased. A critical event has p 1
// until the reserve is spent.
func (v *Valve) Share(now int64, p float64, critical bool) float64 {
	if critical {
		p = 1
	}
	if !(p > 0) { // or not a number
		return 0
	}
	if p = min(p, 1); v.cost == 0 {
		return p
	}
	t := float64(now)
	if critical {
		p = shrink(p, v.reservePaid-t, v.reserveCost)
		v.reservePaid = max(v.reservePaid, t-max(reserveDepth, 2*v.reserveCost)) + p*v.reserveCost
	} else {
		p = shrink(p, v.paid-t, v.cost)
	}
	v.paid = max(v.paid, t-max(depth, 2*v.cost)) + p*v.cost
	return p
}

// shrink halves p for each halving of debt, or, of small budgets, for each event.
func shrink(p, debt, cost float64) float64 {
	if debt <= 0 {
		return p
	}
	return max(p*math.Exp2(-debt/max(halving, cost)), min(p, Rarest))
}
