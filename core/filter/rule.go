package filter

import (
	"net/netip"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/selector"
)

// Rule is a filter as it was asked for. An event matches when it has, of everything that
// is not empty, one of the values.
type Rule struct {
	Name   string
	Action kernel.FilterAction
	Kinds  []event.Kind
	// Priority that what matches gets, where the action is kernel.Rank; Priorities are
	// those that events come with.
	Priority   event.Priority
	Priorities []event.Priority
	Comms      []string
	Peers      []netip.Prefix
	PIDs       []uint32
	UIDs       []uint32
	Ports      []uint16
	Errors     []uint16
	Calls      []kernel.Call
	// Patterns, as path.Match has them.
	Containers []string // of names; or of ids, by their beginning
	Namespaces []string // of the pod's namespace
	Images     []string // of names, with or without a tag
	Cgroups    []string // of paths from the hierarchy's root
	Labels     map[string]string
	// Until is when it ends; zero: never.
	Until time.Time
}

// selector is what the rule asks of control groups.
func (r *Rule) selector() selector.Selector {
	return selector.Selector{
		Containers: r.Containers, Namespaces: r.Namespaces, Images: r.Images, Cgroups: r.Cgroups, Labels: r.Labels,
	}
}

// selects tells whether a rule asks for control groups.
func (r *Rule) selects() bool {
	s := r.selector()
	return !s.Empty()
}

// quick gives a rule as one by a single value, if it is one.
func (r *Rule) quick() (q kernel.Quick, ok bool) {
	n := len(r.Comms) + len(r.Peers) + len(r.PIDs) + len(r.UIDs) + len(r.Ports) + len(r.Errors) + len(r.Calls)
	if r.Action != kernel.Drop || n != 1 || len(r.Kinds) > 0 || r.selects() {
		return q, false
	}
	number := func(ask kernel.Ask, value uint32) kernel.Quick {
		return kernel.Quick{Number: kernel.Number{Ask: ask, Value: value}}
	}
	switch {
	case len(r.Comms) == 1:
		q.Comm = r.Comms[0]
	case len(r.Peers) == 1:
		q.Peer = r.Peers[0]
	case len(r.PIDs) == 1:
		q = number(kernel.AskPID, r.PIDs[0])
	case len(r.UIDs) == 1:
		q = number(kernel.AskUID, r.UIDs[0])
	case len(r.Ports) == 1:
		q = number(kernel.AskPort, uint32(r.Ports[0]))
	case len(r.Errors) == 1:
		q = number(kernel.AskError, uint32(r.Errors[0]))
	default:
		q = number(kernel.AskCall, uint32(r.Calls[0]))
	}
	return q, true
}

// LooksAt are the kinds of events that the kernel holds against the rule.
func (r *Rule) LooksAt() []event.Kind { return r.compiled().LooksAt() }

// Selects tells whether the rule names control groups, which user space has to find.
func (r *Rule) Selects() bool { return r.selects() }

// compiled is the rule as the kernel takes it.
func (r *Rule) compiled() kernel.Filter {
	return kernel.Filter{
		Action: r.Action, Priority: r.Priority, Kinds: r.Kinds, Priorities: r.Priorities, InCgroup: r.selects(), Comms: r.Comms, Peers: r.Peers,
		PIDs: r.PIDs, UIDs: r.UIDs, Ports: r.Ports, Errors: r.Errors, Calls: r.Calls,
	}
}
