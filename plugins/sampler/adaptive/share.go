package main

import (
	"math"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// rarest is the least probability that is planned. With none at all not even the first
// event of a container would be kept, and totals would be too low: with this one they
// are only uncertain.
const rarest = 1e-6

// share is a class's part of the budget.
type share struct {
	match       *protov1.ClassPattern
	priority    priority
	load        float64 // events/s, as all that follows
	weight      float64 // what its part is in proportion to
	least, most float64 // that its part may be
	probability float64 // the answer
}

// divide gives each class its part of the budget, in events/s: in proportion to its
// weight, but nobody more than it has. Its weight is its load to the power of the
// exponent, so that with ½ a class of a hundred times the load gets ten times as much.
// With banded each class is kept within its band.
func divide(shares []share, config Config, budget float64, banded bool) {
	for i := range shares {
		s := &shares[i]
		s.weight, s.least, s.most = 0, 0, s.load
		if s.load > 0 {
			s.weight = math.Pow(s.load, config.Exponent) * importance[s.priority]
		}
	}
	if banded {
		bind(shares, budget)
	}
	height := level(shares, budget)
	for i := range shares {
		s := &shares[i]
		s.probability = 1
		if s.load > 0 {
			s.probability = min(max(s.part(height)/s.load, config.MinRate, rarest), 1)
		}
	}
}

// bind bounds all shares by the bands of their priorities. The lower bounds are met in
// the order of the priorities. The first that there is no room for shares what is left, but
// for a little of it, which those below share: nothing at all is told of none.
func bind(shares []share, budget float64) {
	const (
		little = 0.01 // of the budget
		of     = 0.5  // of what is left
	)
	var loads [priorities]float64
	floors := 0.0
	for i := range shares {
		s := &shares[i]
		loads[s.priority] += s.load
		floors += s.load * bands[s.priority].least
	}
	if floors <= budget {
		confine(shares, bands)
		return
	}
	scope := bands
	p, left := fault, budget
	for ; p > debug && bands[p].least*loads[p] <= left; p-- {
		left -= bands[p].least * loads[p]
		scope[p].most = bands[p].least
	}
	scope[p] = band{0, bands[p].least}
	clear(scope[:p])
	confine(shares, scope)
	if p == debug {
		return
	}
	height := level(shares, budget-min(little*budget, of*left))
	for i := range shares {
		s := &shares[i]
		if s.priority >= p {
			s.least = s.part(height)
			s.most = s.least
		} else {
			s.most = s.load * bands[s.priority].least
		}
	}
}

// confine all shares to what a band says of their loads.
func confine(shares []share, scope [priorities]band) {
	for i := range shares {
		s := &shares[i]
		s.least, s.most = s.load*scope[s.priority].least, s.load*scope[s.priority].most
	}
}

// part of the budget, at a level.
func (s *share) part(height float64) float64 {
	return min(max(height*s.weight, s.least), s.most)
}

// level gives the level at which the parts of all shares come to a budget: as much as is
// poured in, while each part is its weight times the level, within its bounds. It is
// math.MaxFloat64 when there is room for all. By Newton's method, which is exact once it
// is between the right two bounds, and bisection where that leads astray.
func level(shares []share, budget float64) float64 {
	const (
		steps = 64
		exact = 1e-9 // of the budget
	)
	var all, weights, above float64
	for i := range shares {
		s := &shares[i]
		all += s.most
		if s.weight > 0 {
			weights += s.weight
			above = max(above, s.most/s.weight)
		}
	}
	if all <= budget {
		return math.MaxFloat64
	}
	var below float64 // the height is between it and above
	height := budget / weights
	for range steps {
		sum, slope := 0.0, 0.0
		for i := range shares {
			s := &shares[i]
			part := s.part(height)
			if sum += part; part > s.least && part < s.most {
				slope += s.weight
			}
		}
		if math.Abs(sum-budget) <= exact*budget {
			return height
		}
		if sum < budget {
			below = height
		} else {
			above = height
		}
		height += (budget - sum) / slope
		if !(height > below && height < above) {
			height = below + (above-below)/2
		}
	}
	return below
}
