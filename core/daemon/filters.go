package daemon

import (
	"strings"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/filter"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
)

// filterRules are the filters of a configuration that has been checked.
func filterRules(filters []config.Filter) []filter.Rule {
	out := make([]filter.Rule, len(filters))
	for i, f := range filters {
		out[i] = filterRule(f)
	}
	return out
}

func filterRule(f config.Filter) filter.Rule {
	r := filter.Rule{
		Name: f.Name, Comms: f.Comm, PIDs: f.PID, UIDs: f.UID, Ports: f.Port,
		Containers: f.Container, Images: f.Image, Labels: f.Label, Cgroups: f.Cgroup,
		Action: map[string]kernel.FilterAction{"drop": kernel.Drop, "keep": kernel.Keep, "only": kernel.Only}[f.Action],
	}
	for _, name := range f.Kinds {
		if k, ok := event.ParseKind(name); ok {
			r.Kinds = append(r.Kinds, k)
		}
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

// BudgetPlan is what is kept at most.
type BudgetPlan struct {
	EventsPerSecond float64 `json:"events_per_second"`
	Reserved        float64 `json:"reserved"` // of it, for critical and first events
}

// FilterPlan is a filter, and what the kernel can do of it.
type FilterPlan struct {
	Name   string   `json:"name"`
	Action string   `json:"action"`
	Kinds  []string `json:"kinds"` // that it looks at
	Unseen []string `json:"unseen,omitempty"`
}

func planFilters(c config.Config) []FilterPlan {
	out := make([]FilterPlan, len(c.Filters))
	for i, f := range c.Filters {
		r := filterRule(f)
		p := FilterPlan{Name: f.Name, Action: f.Action}
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
		out[i] = p
	}
	return out
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
