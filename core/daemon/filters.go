package daemon

import (
	"slices"
	"strings"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/filter"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
)

// filterRules are the filters and priorities of a configuration that has been checked.
func filterRules(c config.Config) []filter.Rule {
	var out []filter.Rule
	for _, f := range c.Filters {
		r := ruleOf(f.Name, f.Selector)
		r.Action = map[string]kernel.FilterAction{"drop": kernel.Drop, "keep": kernel.Keep, "only": kernel.Only}[f.Action]
		out = append(out, r)
	}
	for _, p := range c.Priorities {
		out = append(out, priorityRules(p)...)
	}
	return out
}

// priorityRules are one rule, or two where kinds are named and priorities too: one of
// them is enough.
func priorityRules(p config.Priority) (out []filter.Rule) {
	if p.LabelOnly {
		return nil
	}
	r := ruleOf("priority "+p.Name, p.Selector)
	r.Action, r.Priority = kernel.Rank, p.Becomes()
	kinds, priorities := p.Matches()
	if len(kinds) > 0 {
		of := r
		of.Kinds = parseKinds(kinds)
		out = append(out, of)
	}
	if len(priorities) > 0 {
		of := r
		of.Name, of.Priorities = r.Name+" by priority", priorities
		out = append(out, of)
	}
	if len(out) == 0 {
		out = append(out, r)
	}
	return out
}

// labelsOf are the priorities that are only shown.
func labelsOf(priorities []config.Priority) (out []filter.Label) {
	for _, p := range priorities {
		if p.LabelOnly {
			out = append(out, filter.Label{Texts: p.Match, Priority: p.Becomes()})
		}
	}
	return out
}

func parseKinds(names []string) (out []event.Kind) {
	for _, name := range names {
		if k, ok := event.ParseKind(name); ok {
			out = append(out, k)
		}
	}
	return out
}

func ruleOf(name string, f config.Selector) filter.Rule {
	r := filter.Rule{
		Name: name, Comms: f.Comm, PIDs: f.PID, UIDs: f.UID, Ports: f.Port, Kinds: parseKinds(f.Kinds),
		Containers: f.Container, Namespaces: f.Namespace, Images: f.Image, Labels: f.Label, Cgroups: f.Cgroup,
	}
	for _, p := range f.Peer {
		if prefix, err := config.ParsePeer(p); err == nil {
			r.Peers = append(r.Peers, prefix)
		}
	}
	for _, name := range f.Error {
		if n, ok := config.ParseErrno(name); ok {
			r.Errors = append(r.Errors, n)
		}
	}
	for _, name := range f.Syscall {
		if c, ok := kernel.ParseCall(name); ok {
			r.Calls = append(r.Calls, c)
		}
	}
	return r
}

// FilterPlan is a filter or a priority block, and what the kernel can do of it.
type FilterPlan struct {
	Name   string   `json:"name"`
	Action string   `json:"action"`
	Kinds  []string `json:"kinds"` // that it looks at
	Unseen []string `json:"unseen,omitempty"`
}

func planFilters(c config.Config) (out []FilterPlan) {
	for _, f := range c.Filters {
		out = append(out, planRule(c, f.Name, f.Action, ruleOf(f.Name, f.Selector)))
	}
	return out
}

func planPriorities(c config.Config) (out []FilterPlan) {
	for _, p := range c.Priorities {
		becomes := "becomes " + p.Becomes().String()
		if p.LabelOnly {
			out = append(out, FilterPlan{Name: p.Name, Action: becomes + " in what is shown", Unseen: []string{"what is kept: the kernel can't look for a text"}})
			continue
		}
		one := FilterPlan{Name: p.Name, Action: becomes}
		for _, r := range priorityRules(p) {
			part := planRule(c, p.Name, becomes, r)
			one.Kinds = append(one.Kinds, part.Kinds...)
			one.Unseen = append(one.Unseen, part.Unseen...)
		}
		slices.Sort(one.Kinds)
		slices.Sort(one.Unseen)
		one.Kinds, one.Unseen = slices.Compact(one.Kinds), slices.Compact(one.Unseen)
		out = append(out, one)
	}
	return out
}

// planRule says what a rule looks at, of what is traced, and what it can't know.
func planRule(c config.Config, name, action string, r filter.Rule) FilterPlan {
	p := FilterPlan{Name: name, Action: action}
	for _, k := range r.LooksAt() {
		if probed(c.Probes, k) {
			p.Kinds = append(p.Kinds, k.String())
		}
	}
	if len(p.Kinds) == 0 {
		p.Unseen = append(p.Unseen, "everything: no event that is traced can have all that it asks for")
	}
	if r.Selects() {
		p.Unseen = append(p.Unseen, "events of a container before its runtime has told of it")
	}
	if len(r.Calls) > 0 {
		p.Unseen = append(p.Unseen, "connects that do not fail at once: states of the socket tell them, no call")
	}
	if len(r.Comms) > 0 {
		p.Unseen = append(p.Unseen, "the name that a process has after its exec, in its fork: that has its parent's")
	}
	return p
}

// probed tells whether a kind is traced.
func probed(p config.Probes, k event.Kind) bool {
	family, _, _ := strings.Cut(k.String(), ".")
	switch family {
	case "process":
		return p.Process != nil
	case "network":
		return p.Network != nil
	case "file":
		return p.File != nil
	}
	return false
}
