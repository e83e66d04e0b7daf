package rehearsal

import (
	"math"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/simulation"
)

// Result of Run.
type Result struct {
	simulation.Score
	Policies uint64        // put into force, the built-in one after a sampler's included
	Refused  uint64        // policies of the sampler
	Promoted int           // classes with rows of their own, the most at a time
	Planning time.Duration // the longest that an answer took, of real time
	// Unanswered is how often the sampler was asked in vain, AwayFrom the virtual time
	// when that was first so.
	Unanswered uint64
	AwayFrom   time.Duration
}

// Pool makes one result of the runs of several seeds: counts are added up, bounds and
// times are those of the worst run, and shares, bias and error are the runs' means.
func Pool(runs []*Result) *Result {
	p := &Result{}
	n := float64(len(runs))
	for _, r := range runs {
		p.Seen += r.Seen
		p.Kept += r.Kept
		p.RingLost += r.RingLost
		p.Intervals += r.Intervals
		p.IntervalsHit += r.IntervalsHit
		p.Policies += r.Policies
		p.Refused += r.Refused

		p.MaxSecond = max(p.MaxSecond, r.MaxSecond)
		p.MaxTenth = max(p.MaxTenth, r.MaxTenth)
		p.Above = max(p.Above, r.Above)
		p.Promoted = max(p.Promoted, r.Promoted)
		p.Planning = max(p.Planning, r.Planning)

		p.Utilisation += r.Utilisation / n
		p.Critical += r.Critical / n
		p.Covered += r.Covered / n
		p.Bias += r.Bias / n
		p.Error += r.Error / n

		if r.Unanswered > 0 && (p.Unanswered == 0 || r.AwayFrom < p.AwayFrom) {
			p.AwayFrom = r.AwayFrom
		}
		p.Unanswered += r.Unanswered
	}
	return p
}

// StandardError is that of the mean of numbers that were drawn alike; of fewer than two
// it is not known, and +Inf.
func StandardError(of []float64) float64 {
	n := float64(len(of))
	if n < 2 {
		return math.Inf(1)
	}
	var mean, squares float64
	for _, v := range of {
		mean += v / n
	}
	for _, v := range of {
		squares += (v - mean) * (v - mean)
	}
	return math.Sqrt(squares / (n - 1) / n)
}
