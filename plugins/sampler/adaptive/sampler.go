package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
)

const (
	// unknown is what a class of which nothing is known may have, in events/s, before
	// the kernel takes it for a burst.
	unknown = 20
	// margin is the share of the budget that is planned: the kernel raises what is left.
	margin = 0.99
)

// sampler turns what it has learned of the load into policies.
type sampler struct {
	config   Config
	learned  *learned
	sequence uint64
	last     plan // that a policy told
	spare    []share
}

// plan is how a budget is divided, in the order of the classes' numbers.
type plan struct {
	told   bool // by a policy
	shares []share
	load   float64 // events/s
	banded bool    // the budget is short, and priorities keep to their bands
}

func newSampler(c Config) *sampler { return &sampler{config: c, learned: newLearned()} }

// Interval at which reports come.
func (s *sampler) Interval() time.Duration { return s.config.Interval }

// Start forgets what was planned, not what was learned, and keeps all that the budget
// has room for.
func (s *sampler) Start(context.Context) (*protov1.Policy, error) {
	s.last = plan{}
	return s.policy(plan{}, "no load known yet"), nil
}

// Plan divides the budget anew. A plan that is as good as the last one is nil.
func (s *sampler) Plan(_ context.Context, r *protov1.Report) (*protov1.Policy, error) {
	interval := time.Duration(r.GetIntervalNano())
	if interval <= 0 {
		return nil, nil // nothing can be said of no time
	}
	s.learned.hear(r, interval)
	budget := s.budget(r)
	if budget <= 0 {
		return nil, nil // there is no bound: what Start said holds
	}
	next := s.plan(budget, nil)
	if s.last.alike(next) {
		return s.keep(next), nil
	}
	return s.tell(next, s.reason(next, budget)), nil
}

// budget in events/s: the lesser of the daemon's and its own, 0 where neither has one.
func (s *sampler) budget(r *protov1.Report) float64 {
	own, daemon := s.config.Budget, r.GetBudgetEventsPerSecond()
	if own == 0 || (daemon > 0 && daemon < own) {
		return daemon
	}
	return own
}

// plan divides a budget by the load that is known. factor is how many times as much of
// each class is expected, by the number of its pooled class; nil: no more and no less.
func (s *sampler) plan(budget float64, factor []float64) plan {
	next := plan{shares: s.spare[:0]}
	for i := range s.learned.members {
		m := &s.learned.members[i]
		if !m.decided() {
			continue
		}
		load := m.rate.rate
		if factor != nil {
			load *= factor[m.pooled]
		}
		next.load += load
		next.shares = append(next.shares, share{match: m.match, priority: m.priority, load: load})
	}
	free := max(budget-s.learned.reserved.rate, 0) * margin
	next.banded = s.config.Bands && short(next.load, free, s.last.banded)
	divide(next.shares, s.config, free, next.banded)
	return next
}

// short tells whether a budget is, for a load. It is so until there is a tenth of it
// to spare, or a load that is about the budget would be pressed into the bands and let
// out of them again and again.
func short(load, budget float64, before bool) bool {
	if before {
		return load > 0.9*budget
	}
	return load > budget
}

// keep lets the last policy stand, and what was to replace it be written over.
func (s *sampler) keep(next plan) *protov1.Policy {
	s.spare = next.shares
	return nil
}

// tell a plan.
func (s *sampler) tell(next plan, reason string) *protov1.Policy {
	next.told = true
	s.spare, s.last = s.last.shares, next
	return s.policy(next, reason)
}

func (s *sampler) reason(p plan, budget float64) string {
	reason := fmt.Sprintf("%.0f events/s of %d classes for a budget of %.0f", p.load, len(p.shares), budget)
	if p.banded {
		reason += ", each priority within its band"
	}
	return reason
}

// policy that tells a plan. Its messages are its own, but for what rules match: that is
// made once for each class and never changed. They are made all at once.
func (s *sampler) policy(p plan, reason string) *protov1.Policy {
	s.sequence++
	out := &protov1.Policy{
		Sequence: s.sequence, DefaultProbability: proto.Float64(1), Reason: reason, FillBudget: !p.banded,
		Rules: make([]*protov1.Rule, 0, len(p.shares)+int(priorities)),
	}
	if s.config.Budget > 0 {
		out.BudgetEventsPerSecond = proto.Float64(s.config.Budget)
	}
	rules := make([]protov1.Rule, len(p.shares))
	numbers := make([][2]float64, len(p.shares))
	for i := range p.shares {
		from, rule, n := &p.shares[i], &rules[i], &numbers[i]
		n[0], n[1] = from.probability, max(from.load, unknown)
		rule.Match, rule.Probability, rule.ExpectedEventsPerSecond = from.match, &n[0], &n[1]
		out.Rules = append(out.Rules, rule)
	}
	if p.banded { // for what no rule matches yet
		for p := range priorities {
			out.Rules = append(out.Rules, &protov1.Rule{
				Match: &protov1.ClassPattern{Priority: proto.String(p.String())}, Probability: proto.Float64(bands[p].most),
			})
		}
	}
	return out
}

// alike tells whether the next plan is not worth the change: the same classes, and next
// to none of the events that would be kept moved between them.
func (p plan) alike(next plan) bool {
	const little = 0.02
	if !p.told || len(p.shares) != len(next.shares) || p.banded != next.banded {
		return false
	}
	var moved, kept float64
	for i := range next.shares {
		before, now := &p.shares[i], &next.shares[i]
		if before.match != now.match {
			return false
		}
		moved += math.Abs(before.probability-now.probability) * now.load
		kept += now.probability * now.load
	}
	return moved <= little*kept
}

var (
	_ sampling.Sampler = (*sampler)(nil)
	_ sampling.Paced   = (*sampler)(nil)
)
