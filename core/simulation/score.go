package simulation

import "time"

// Score is what was measured of the events after the warm-up. An event counts as kept
// if it was decided to be, and found room in the ring: see [Scorer]. A share of nothing
// is 1.
type Score struct {
	Seen     uint64 // events
	Kept     uint64 // events that were kept
	RingLost uint64 // events that were decided to be kept, and found the ring full

	// MaxSecond is the most events that were decided to be kept, ring losses
	// included, in any window of 1 s that ends at a multiple of 10 ms, over Budget.
	MaxSecond float64
	// MaxTenth is the same of a window of 100 ms that ends at a multiple of 1 ms,
	// over Budget · 0.1.
	MaxTenth float64
	// Above is the time within 5 s after a step during which more than 1.25 · Budget
	// · 0.1 events had been decided to be kept, ring losses included, in the last
	// 100 ms: the sum of the buckets of 1 ms at whose end it was so. Of several
	// steps it is that of the worst. A step whose 5 s reach beyond the next has the
	// time of both.
	Above time.Duration
	// Utilisation is the events kept over what could have been: the sum of kept over
	// the sum of min(seen, Budget), both over whole seconds since the warm-up. It
	// passes 1 where more than Budget was kept.
	Utilisation float64

	// Critical is the share of the critical events that were kept.
	Critical float64
	// Covered is the share of groups, the host left out, of which an event was kept,
	// among those that had one.
	Covered float64

	// Bias is the sum of the weights of events kept over the number of events seen,
	// less 1.
	Bias float64
	// Error is the weighted error of the totals that a reader sees: over cells, each
	// the events of a class and attribute in a whole second since the warm-up, the sum
	// of |estimate - truth| over the sum of truth. The estimate is the sum of the
	// weights of events kept. A class is a group, kind and priority.
	Error float64
	// Intervals is the number of classes and whole seconds with at least 30 events
	// kept, of which one at least had a weight above 1.
	Intervals uint64
	// IntervalsHit is how many of Intervals hold the truth: the class's events in
	// that second are no further from the estimate than 1.96 · sqrt(Σ w(w-1)) over
	// the weights w of events kept, which is 95 % where the draws are independent.
	IntervalsHit uint64
}
