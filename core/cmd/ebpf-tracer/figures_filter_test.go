package main

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/filter"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// added are the filters that callers of figures have added; there is room for three.
type added struct {
	mu    sync.Mutex
	views []*protov1.FilterView
}

// Filters are those of a configuration and of a sampler, and what was added.
func (f *figures) Filters() ([]*protov1.FilterView, error) {
	f.added.mu.Lock()
	defer f.added.mu.Unlock()
	all := []*protov1.FilterView{
		{Source: "config", Events: 1234, Cgroups: ptr(uint32(2)), LooksAt: []string{"network.connect"}, Filter: &protov1.Filter{
			Name: "shop-only", Action: "only", Kinds: []string{"network.connect"}, Container: []string{"shop-*"}, Label: map[string]string{"team": "*", "app": "w\x1b[2J"},
		}},
		{Source: "config", Priorities: []string{"error"}, Filter: &protov1.Filter{Name: "priority errors", Action: "critical"}},
	}
	all = append(all, f.added.views...)
	return append(all, &protov1.FilterView{Source: "sampler", Events: 9, Filter: &protov1.Filter{Name: "0", Action: "drop", Pid: []uint32{42}}}), nil
}

// AddFilters puts them in place.
func (f *figures) AddFilters(filters []*protov1.Filter, ttl time.Duration) (*protov1.AddFiltersResponse, error) {
	f.added.mu.Lock()
	defer f.added.mu.Unlock()
	out := &protov1.AddFiltersResponse{}
	if ttl > 0 {
		out.UntilUnixNano = time.Now().Add(ttl).UnixNano()
	}
	for _, one := range filters {
		c := config.Filter{Name: one.GetName(), Action: one.GetAction(), Selector: config.Selector{Comm: one.GetComm(), Peer: one.GetPeer(), PID: one.GetPid(), Label: one.GetLabel()}}
		if err := config.CheckRule(c).Err(); err != nil {
			return nil, fmt.Errorf("filter %q: %w", one.GetName(), err)
		}
		if len(one.GetComm()) > 0 {
			out.Unseen = append(out.Unseen, "the name that a process has after its exec, in its fork: that has its parent's")
		}
		v := &protov1.FilterView{Source: "api", Filter: proto.CloneOf(one), UntilUnixNano: out.UntilUnixNano}
		if i := f.added.find(one.GetName()); i >= 0 {
			out.Replaced, f.added.views[i] = append(out.Replaced, one.GetName()), v
			continue
		}
		if len(f.added.views) == 3 {
			return nil, fmt.Errorf("%w: 4, and 0 by one value; at most 3 and 0", filter.ErrNoRoom)
		}
		f.added.views = append(f.added.views, v)
	}
	return out, nil
}

// RemoveFilter takes one out.
func (f *figures) RemoveFilter(name string) (*protov1.RemoveFilterResponse, error) {
	f.added.mu.Lock()
	defer f.added.mu.Unlock()
	i := f.added.find(name)
	if i < 0 {
		return &protov1.RemoveFilterResponse{Source: map[string]string{"shop-only": "config", "0": "sampler"}[name]}, nil
	}
	f.added.views = slices.Delete(f.added.views, i, i+1)
	return &protov1.RemoveFilterResponse{Found: true, Events: 77}, nil
}

func (a *added) find(name string) int {
	return slices.IndexFunc(a.views, func(v *protov1.FilterView) bool { return v.GetFilter().GetName() == name })
}
