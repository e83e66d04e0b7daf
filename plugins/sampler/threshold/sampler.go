package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
)

// step is the least change of a rate, as a share of it, that is worth a new
// policy.
const step = 0.05

// thresholdSampler answers with the table's rate for the load.
type thresholdSampler struct {
	config   Config
	load     load
	table    table
	sequence uint64
	rate     float64 // of the last policy
	level    int
}

func newThreshold(c Config) *thresholdSampler {
	return &thresholdSampler{config: c.withDefaults()}
}

// Start forgets the load and keeps everything until the first report: a load is
// low until it is known.
func (s *thresholdSampler) Start(context.Context) (*protov1.Policy, error) {
	c := s.config
	s.load = load{constant: c.Smoothing}
	s.table = table{levels: c.Levels, max: c.AboveMaxRate, min: c.AboveMinRate, hysteresis: c.Hysteresis}
	return s.policy(c.Levels[0].Rate, "no load known yet"), nil
}

// Plan answers with a policy when the level or, above the last, the rate is
// another than before; else with nil.
func (s *thresholdSampler) Plan(_ context.Context, r *protov1.Report) (*protov1.Policy, error) {
	interval := time.Duration(r.GetIntervalNano())
	if interval <= 0 {
		return nil, nil // nothing can be said of no time
	}
	var events uint64
	for _, c := range r.GetClasses() {
		// Filtered events are dropped whatever the policy, and cost next to
		// nothing. At the edges of an interval they may exceed what was seen.
		if c.GetSeen() > c.GetFiltered() {
			events += c.GetSeen() - c.GetFiltered()
		}
	}
	mean := s.load.add(events, interval)
	rate := s.table.rate(mean)
	if s.table.at == s.level && math.Abs(rate-s.rate) <= step*s.rate {
		return nil, nil
	}
	return s.policy(rate, fmt.Sprintf("%s: %s events/s", s.table.name(), thousands(mean))), nil
}

func (s *thresholdSampler) policy(rate float64, reason string) *protov1.Policy {
	s.rate, s.level = rate, s.table.at
	s.sequence++
	return policy(s.sequence, rate, reason)
}

// policy keeps every critical event and a share of the others.
func policy(sequence uint64, rate float64, reason string) *protov1.Policy {
	return &protov1.Policy{
		Sequence: sequence,
		Rules: []*protov1.Rule{{
			Match:       &protov1.ClassPattern{Priority: proto.String("critical")},
			Probability: proto.Float64(1),
		}},
		DefaultProbability: proto.Float64(rate),
		Reason:             reason,
	}
}

// thousands writes a number as 12,345.
func thousands(f float64) string {
	s := strconv.FormatFloat(math.Round(f), 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// fixedSampler answers once.
type fixedSampler struct{ rate float64 }

func (s fixedSampler) Start(context.Context) (*protov1.Policy, error) {
	return policy(1, s.rate, fmt.Sprintf("fixed rate: %g", s.rate)), nil
}

func (s fixedSampler) Plan(context.Context, *protov1.Report) (*protov1.Policy, error) {
	return nil, nil
}

var (
	_ sampling.Sampler = (*thresholdSampler)(nil)
	_ sampling.Sampler = fixedSampler{}
)
