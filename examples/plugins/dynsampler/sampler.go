package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	dynsampler "github.com/honeycombio/dynsampler-go"
	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
)

// longest is the most that the time of one report counts for.
const longest = time.Hour

// sampler asks the library for the rate of each class that has seen something. The
// library calculates them on a goroutine of its own, once each interval, from the counts
// that it was asked with.
type sampler struct {
	config   Config
	library  dynsampler.Sampler
	sequence uint64
	now      time.Duration // of all reports together
	rates    map[key]*rate
}

var _ sampling.Sampler = (*sampler)(nil)

// key is what has a rate of its own. Without a priority it is of all.
type key struct{ kind, priority, group string }

// rate is the library's last answer about a key.
type rate struct {
	of    int           // events that one stands for, at least 1
	asked time.Duration // when
}

// newSampler starts the library, until ctx is done.
func newSampler(ctx context.Context, c Config, log *slog.Logger) (*sampler, error) {
	s := &sampler{config: c, library: strategies[c.Strategy].make(c), rates: map[key]*rate{}}
	if err := s.library.Start(); err != nil {
		return nil, fmt.Errorf("start dynsampler: %w", err)
	}
	context.AfterFunc(ctx, func() {
		if err := s.library.Stop(); err != nil {
			log.Warn("dynsampler did not stop", "error", err)
		}
	})
	return s, nil
}

// Start goes on with the rates of an earlier stream; in the beginning there are none.
func (s *sampler) Start(context.Context) (*protov1.Policy, error) { return s.policy(), nil }

// Plan hands the library the counts of a report, and answers with its rates when one has
// changed.
func (s *sampler) Plan(_ context.Context, r *protov1.Report) (*protov1.Policy, error) {
	s.now += min(max(0, time.Duration(r.GetIntervalNano())), longest)
	changed := false
	for k, n := range s.count(r) {
		// 0 is the answer of a strategy that does not know the key yet.
		of := max(1, s.library.GetSampleRateMulti(k.String(), n))
		if last := s.rates[k]; last == nil || last.of != of {
			changed = true
		}
		s.rates[k] = &rate{of, s.now}
	}
	for k, last := range s.rates {
		// Of a key that it hears nothing of for an interval the library holds that one
		// event stands for itself. It can't be asked: that would count as an event.
		if s.now-last.asked > s.config.Interval {
			delete(s.rates, k)
			changed = changed || last.of > 1
		}
	}
	if !changed {
		return nil, nil
	}
	return s.policy(), nil
}

// count gives the events of each key. What filters drop is not the policy's to decide,
// nor is what is critical.
func (s *sampler) count(r *protov1.Report) map[key]int {
	counts := map[key]int{}
	for _, c := range r.GetClasses() {
		if c.GetSeen() <= c.GetFiltered() || c.GetClass().GetPriority() == "critical" {
			continue
		}
		k := key{c.GetClass().GetKind(), c.GetClass().GetPriority(), c.GetClass().GetGroup()}
		if s.config.Key == byKind {
			k.priority = ""
		}
		counts[k] += int(min(c.GetSeen()-c.GetFiltered(), math.MaxInt32))
	}
	return counts
}

// String is the key for the library. No part of it holds a space.
func (k key) String() string { return k.kind + " " + k.priority + " " + k.group }

// policy keeps one event of as many as the library says, and all of what it was not
// asked about.
func (s *sampler) policy() *protov1.Policy {
	s.sequence++
	p := &protov1.Policy{Sequence: s.sequence, DefaultProbability: proto.Float64(1)}
	most, thinned := 1, 0
	for k, r := range s.rates {
		if r.of <= 1 {
			continue
		}
		most, thinned = max(most, r.of), thinned+1
		m := &protov1.ClassPattern{Kind: proto.String(k.kind), Group: proto.String(k.group)}
		if k.priority != "" {
			m.Priority = proto.String(k.priority)
		}
		p.Rules = append(p.Rules, &protov1.Rule{Match: m, Probability: proto.Float64(1 / float64(r.of))})
	}
	slices.SortFunc(p.Rules, func(a, b *protov1.Rule) int {
		return strings.Compare(name(a.GetMatch()), name(b.GetMatch()))
	})
	p.Reason = fmt.Sprintf("%s: everything is kept", s.config.Strategy)
	if thinned > 0 {
		p.Reason = fmt.Sprintf("%s: %d of %d classes are thinned out, to 1 in %d at most", s.config.Strategy, thinned, len(s.rates), most)
	}
	return p
}

func name(m *protov1.ClassPattern) string {
	return m.GetKind() + " " + m.GetPriority() + " " + m.GetGroup()
}
