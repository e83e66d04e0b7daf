package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
)

// unknown is what a class of which nothing is known may have, in events/s, before the
// kernel takes it for a burst.
const unknown = 20

// sampler turns what it has learned of the load into policies.
type sampler struct {
	config   Config
	learned  *learned
	sequence uint64
	rules    map[class]rule // of the last policy
}

// rule of one class.
type rule struct{ probability, expected float64 }

func newSampler(c Config) *sampler { return &sampler{config: c, learned: newLearned()} }

// Start forgets what was planned, not what was learned, and keeps all that the budget
// has room for.
func (s *sampler) Start(context.Context) (*protov1.Policy, error) {
	s.rules = nil
	return s.policy(nil, "no load known yet"), nil
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
	rules := divide(s.learned.classes(), s.config, budget-s.learned.reserved.rate)
	if s.rules != nil && alike(s.rules, rules) {
		return nil, nil
	}
	s.rules = rules
	return s.policy(rules, fmt.Sprintf("%.0f events/s of %d classes for a budget of %.0f", s.learned.total(), len(rules), budget)), nil
}

// budget in events/s: the lesser of the daemon's and its own, 0 where neither has one.
func (s *sampler) budget(r *protov1.Report) float64 {
	own, daemon := s.config.Budget, r.GetBudgetEventsPerSecond()
	if own == 0 || (daemon > 0 && daemon < own) {
		return daemon
	}
	return own
}

func (s *sampler) policy(rules map[class]rule, reason string) *protov1.Policy {
	s.sequence++
	p := &protov1.Policy{
		Sequence: s.sequence, DefaultProbability: proto.Float64(1), Reason: reason, FillBudget: true,
		Rules: make([]*protov1.Rule, 0, len(rules)),
	}
	if s.config.Budget > 0 {
		p.BudgetEventsPerSecond = proto.Float64(s.config.Budget)
	}
	for c, r := range rules {
		p.Rules = append(p.Rules, &protov1.Rule{
			Match:                   &protov1.ClassPattern{Kind: proto.String(c.kind), Priority: proto.String(c.priority), Group: proto.String(c.group)},
			Probability:             proto.Float64(r.probability),
			ExpectedEventsPerSecond: proto.Float64(max(r.expected, unknown)),
		})
	}
	return p
}

// alike tells whether the second of two plans is not worth the change: the same
// classes, and next to none of the events that would be kept moved between them.
func alike(a, b map[class]rule) bool {
	const little = 0.02
	var moved, kept float64
	if len(a) != len(b) {
		return false
	}
	for c, r := range b {
		before, ok := a[c]
		if !ok {
			return false
		}
		moved += math.Abs(before.probability-r.probability) * r.expected
		kept += r.probability * r.expected
	}
	return moved <= little*kept
}

// importance is how many times as much an event counts as a debug event.
var importance = map[string]float64{"debug": 1, "info": 1.5, "warning": 2, "error": 3}

// divide gives each class its part of the budget, in events/s: in proportion to its
// weight, but nobody more than it has. Its weight is its load to the power of the
// exponent, so that with ½ a class of a hundred times the load gets ten times as much.
func divide(classes map[class]float64, config Config, budget float64) map[class]rule {
	const margin = 0.99 // the kernel raises what is left
	budget = max(budget*margin, 0)
	type share struct {
		class        class
		load, weight float64
	}
	shares := make([]share, 0, len(classes))
	weights := 0.0
	for c, load := range classes {
		if load > 0 {
			w := math.Pow(load, config.Exponent) * importance[c.priority]
			shares = append(shares, share{c, load, w})
			weights += w
		}
	}
	// Who has less than its part leaves the rest to the others: from the one that
	// wants the least for its weight to the one that wants the most.
	slices.SortFunc(shares, func(a, b share) int {
		switch d := a.load*b.weight - b.load*a.weight; {
		case d < 0:
			return -1
		case d > 0:
			return 1
		}
		return 0
	})
	rules := make(map[class]rule, len(classes))
	for c, load := range classes {
		rules[c] = rule{probability: 1, expected: load}
	}
	for _, s := range shares {
		part := min(s.load, budget*s.weight/weights)
		budget -= part
		weights -= s.weight
		rules[s.class] = rule{probability: max(part/s.load, config.MinRate), expected: s.load}
	}
	return rules
}

var (
	_ sampling.Sampler = (*sampler)(nil)
	_ sampling.Paced   = (*sampler)(nil)
)
