package main

import (
	"context"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
)

// predictive is the sampler that plans for the load of the interval to come. While its
// forecasts are no better than that the next interval will be as the last one was, it
// plans as sampler does.
type predictive struct {
	*sampler
	forecaster *forecaster
	used       bool // by the last policy
}

func newPredictive(c Config) *predictive {
	return &predictive{sampler: newSampler(c), forecaster: newForecaster(c)}
}

// Plan is the sampler's, but for the load that is forecast. Whether forecasts are used
// is told as soon as it changes.
func (p *predictive) Plan(_ context.Context, r *protov1.Report) (*protov1.Policy, error) {
	interval := time.Duration(r.GetIntervalNano())
	if interval <= 0 {
		return nil, nil // nothing can be said of no time
	}
	p.learned.hear(r, interval)
	p.forecaster.hear(p.learned, time.Duration(r.GetTimeUnixNano()), interval)
	budget := p.budget(r)
	if budget <= 0 {
		return nil, nil // there is no bound: what Start said holds
	}
	var factors []float64
	used := p.forecaster.record.good
	if used {
		factors = p.forecaster.factors(p.learned)
	}
	next := p.plan(budget, factors)
	if p.last.alike(next) && p.used == used {
		return p.keep(next), nil
	}
	p.used = used
	return p.tell(next, p.reason(next, budget)+"; "+p.forecaster.record.String()), nil
}

var (
	_ sampling.Sampler = (*predictive)(nil)
	_ sampling.Paced   = (*predictive)(nil)
)
