package contract

import (
	"fmt"
	"math"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// maxRules is how many rules a policy has at most.
const maxRules = 8192

// maxFilters is how many filters a policy has at most.
const maxFilters = 1024

// Sampling judges the answers of one stream of a sampler. The zero value is at the
// beginning of a stream. It is not safe for concurrent use.
type Sampling struct {
	begun    bool
	sequence uint64 // of the last policy
	policy   bool   // there was one
}

// Answer judges the answer to report, 0 for that of the start, and returns what is
// wrong with it.
func (s *Sampling) Answer(report uint64, a *protov1.Answer) []string {
	var wrong []string
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if got := a.GetReportSequence(); got != report {
		add("the answer to report %d says that it answers report %d: repeat the report's sequence, and 0 at the start", report, got)
	}
	switch answer := a.GetAnswer().(type) {
	case nil:
		add("the answer to report %d has neither a policy nor keep, and is refused", report)
	case *protov1.Answer_Keep:
		if !s.policy {
			add("the answer to report %d keeps a policy, but there was none in this stream", report)
		}
	case *protov1.Answer_Policy:
		p := answer.Policy
		if s.policy && p.GetSequence() <= s.sequence {
			add("policy %d comes after policy %d: sequences rise", p.GetSequence(), s.sequence)
		}
		s.policy, s.sequence = true, p.GetSequence()
		policy(p, add)
	}
	return wrong
}

func policy(p *protov1.Policy, add func(string, ...any)) {
	n := p.GetSequence()
	if p.DefaultProbability == nil {
		add("policy %d has no default_probability and is refused: say what becomes of classes that no rule matches", n)
	} else {
		probability(n, "default_probability", p.GetDefaultProbability(), add)
	}
	if len(p.GetRules()) > maxRules {
		add("policy %d has %d rules: it may have %d", n, len(p.GetRules()), maxRules)
	}
	for i, r := range p.GetRules() {
		if r.GetMatch() == nil {
			add("rule %d of policy %d has no match and the policy is refused: an empty pattern matches all", i, n)
		}
		if r.Probability == nil {
			add("rule %d of policy %d has no probability and the policy is refused", i, n)
			continue
		}
		probability(n, fmt.Sprintf("rule %d", i), r.GetProbability(), add)
	}
	filters(p, add)
	if p.GetTtlNano() < 0 {
		add("policy %d has a ttl of %d ns: it is positive, or 0 for the daemon's own", n, p.GetTtlNano())
	}
	if b := p.GetBudgetEventsPerSecond(); b < 0 || math.IsNaN(b) {
		add("policy %d has a budget of %v events a second", n, b)
	}
}

// filters judges what of a policy's filters can be judged without a host.
func filters(p *protov1.Policy, add func(string, ...any)) {
	n := p.GetSequence()
	if len(p.GetFilters()) > maxFilters {
		add("policy %d is refused: it has %d filters, and may have %d", n, len(p.GetFilters()), maxFilters)
	}
	names := map[string]bool{}
	for i, f := range p.GetFilters() {
		if a := f.GetAction(); a != "" && a != "drop" {
			add("policy %d is refused: filter %d has the action %q, and a sampler's filters drop", n, i, a)
		}
		if len(f.GetKinds())+len(f.GetComm())+len(f.GetPid())+len(f.GetUid())+len(f.GetContainer())+len(f.GetNamespace())+
			len(f.GetImage())+len(f.GetLabel())+len(f.GetCgroup())+len(f.GetPeer())+len(f.GetPort())+len(f.GetError())+len(f.GetSyscall()) == 0 {
			add("policy %d is refused: filter %d asks for nothing, and would match every event", n, i)
		}
		if name := f.GetName(); name != "" {
			if names[name] {
				add("policy %d is refused: two filters are named %q", n, name)
			}
			names[name] = true
		}
	}
}

func probability(policy uint64, what string, p float64, add func(string, ...any)) {
	switch {
	case math.IsNaN(p) || math.IsInf(p, 0):
		add("policy %d is refused: its %s is %v", policy, what, p)
	case p < 0 || p > 1:
		add("policy %d has %v as its %s: it is from 0 to 1", policy, p, what)
	}
}
