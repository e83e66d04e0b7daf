package main

import (
	"log/slog"
	"math"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// interval is shorter than an operator may have it, except where the library counts in
// seconds.
const interval = 20 * time.Millisecond

func start(t *testing.T, c Config) *sampler {
	t.Helper()
	s, err := newSampler(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func class(kind, priority string, seen, filtered uint64) *protov1.ClassLoad {
	return &protov1.ClassLoad{Class: &protov1.Class{Kind: kind, Priority: priority}, Seen: seen, Filtered: filtered}
}

// probability of a class under a policy.
func probability(p *protov1.Policy, kind, priority string) float64 {
	for _, r := range p.GetRules() {
		m := r.GetMatch()
		if (m.Kind == nil || m.GetKind() == kind) && (m.Priority == nil || m.GetPriority() == priority) {
			return r.GetProbability()
		}
	}
	return p.GetDefaultProbability()
}

func TestEachStrategyThinsOutWhatIsFrequentAndKeepsWhatIsRare(t *testing.T) {
	goal := 100
	for name, s := range strategies {
		t.Run(name, func(t *testing.T) {
			c := Config{Strategy: name, Interval: interval, Key: byClass}
			if s.seconds {
				c.Interval = time.Second
			}
			if s.throughput {
				c.GoalThroughput = &goal
			} else {
				c.GoalSampleRate = &goal
			}
			sampler := start(t, c)
			policy, err := sampler.Start(t.Context())
			if err != nil || policy == nil || policy.GetDefaultProbability() != 1 {
				t.Fatalf("it starts with %v (%v)", policy, err)
			}
			deadline := time.Now().Add(time.Minute)
			for {
				next, err := sampler.Plan(t.Context(), &protov1.Report{IntervalNano: int64(interval / 10), Classes: []*protov1.ClassLoad{
					class("file.open", "debug", 200_000, 0), class("file.open", "error", 1, 0),
					class("process.exit", "critical", 500_000, 0), class("network.connect", "info", 700_000, 700_000),
				}})
				if err != nil {
					t.Fatal(err)
				}
				if next != nil {
					if next.GetSequence() <= policy.GetSequence() {
						t.Fatalf("policy %d after %d", next.GetSequence(), policy.GetSequence())
					}
					policy = next
				}
				frequent, rare := probability(policy, "file.open", "debug"), probability(policy, "file.open", "error")
				if frequent < 0.1 && rare > 2*frequent {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%v of the frequent and %v of the rare are kept: %v", frequent, rare, policy)
				}
				time.Sleep(interval / 10)
			}
			for _, of := range []struct{ kind, priority string }{{"process.exit", "critical"}, {"network.connect", "info"}, {"process.exec", "info"}} {
				if p := probability(policy, of.kind, of.priority); p != 1 {
					t.Errorf("%v is kept with %v", of, p)
				}
			}
			for _, r := range policy.GetRules() {
				if of := 1 / r.GetProbability(); math.Abs(of-math.Round(of)) > 1e-6 {
					t.Errorf("one event stands for %v", of)
				}
			}
		})
	}
}

// 1,000 events a second where 20 are wanted are 1 in 50.
func TestAClassHasTheRateThatTheLibraryCalculates(t *testing.T) {
	// The library calculates by the clock: where this process stands still for a second
	// between two lines it calculates again, of nothing. Not five times in a row.
	var got float64
	for range 5 {
		if got = calculated(t, 1000, 20); got == 1.0/50 {
			return
		}
	}
	t.Errorf("it is kept with %v, want 1 in 50", got)
}

// calculated is the probability of a kind that had as many events in a second, where goal
// are wanted.
func calculated(t *testing.T, events uint64, goal int) float64 {
	t.Helper()
	s := start(t, Config{Strategy: "per_key_throughput", GoalThroughput: &goal, Interval: time.Second, Key: byKind})
	report := func(seen uint64) *protov1.Policy {
		p, err := s.Plan(t.Context(), &protov1.Report{IntervalNano: 1, Classes: []*protov1.ClassLoad{
			class("file.open", "debug", seen/2, 0), class("file.open", "error", seen/2, 0),
		}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := report(events); probability(p, "file.open", "debug") != 1 {
		t.Errorf("before anything was calculated the policy is %v", p)
	}
	k := key{kind: "file.open"}
	for deadline := time.Now().Add(time.Minute); s.library.GetSampleRateMulti(k.String(), 0) == 1; time.Sleep(10 * time.Millisecond) {
		if p := report(0); p != nil {
			t.Fatalf("a report of nothing is answered with %v", p)
		}
		if time.Now().After(deadline) {
			t.Fatal("the library calculates nothing")
		}
	}
	p := report(2)
	if d, e := probability(p, "file.open", "debug"), probability(p, "file.open", "error"); d != e {
		t.Errorf("classes of one kind are kept with %v and %v", d, e)
	}
	return probability(p, "file.open", "debug")
}

func TestAClassThatHasFallenSilentIsKeptWhole(t *testing.T) {
	goal := 10
	s := start(t, Config{Strategy: "avg_sample_rate", GoalSampleRate: &goal, Interval: time.Minute, Key: byClass})
	plan := func(passed time.Duration, classes ...*protov1.ClassLoad) *protov1.Policy {
		p, err := s.Plan(t.Context(), &protov1.Report{IntervalNano: int64(passed), Classes: classes})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := plan(time.Second, class("file.open", "debug", 1000, 0)); probability(p, "file.open", "debug") != 0.1 {
		t.Fatalf("the library begins with its goal, the policy is %v", p)
	}
	if p := plan(time.Second, class("file.open", "debug", 10, 0)); p != nil {
		t.Errorf("nothing has changed, but the policy is %v", p)
	}
	if p := plan(time.Minute); p != nil {
		t.Errorf("an interval has not passed, but the policy is %v", p)
	}
	if p := plan(time.Second); p == nil || probability(p, "file.open", "debug") != 1 {
		t.Errorf("after an interval without an event the policy is %v", p)
	}
}
