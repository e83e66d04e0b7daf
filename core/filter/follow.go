package filter

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/selector"
)

// names gives the control groups that filters name, of all there are.
func (t *Table) names(filters []*entry) selector.Given {
	named := selector.Given{}
	if !selecting(filters) {
		return named
	}
	for _, id := range t.follower.All() {
		if mask := t.mask(filters, id); mask != 0 {
			named[id] = mask
		}
	}
	return named
}

// selecting tells whether any of the filters asks for control groups.
func selecting(filters []*entry) bool {
	return slices.ContainsFunc(filters, func(e *entry) bool { return e.selects() })
}

// mask of the filters that name a control group.
func (t *Table) mask(filters []*entry, id uint64) (mask uint32) {
	g := t.follower.Lookup(id)
	if g == nil {
		return 0
	}
	w := g.Workload()
	for place, e := range filters {
		if s := e.selector(); !s.Empty() && s.Covers(g.Path, w) {
			mask |= 1 << place
		}
	}
	return mask
}

// Run follows the control groups and ends what has a time, until ctx is done.
func (t *Table) Run(ctx context.Context) {
	var following sync.WaitGroup
	following.Go(func() { t.follower.Run(ctx, t) })
	defer following.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(t.expire())
		select {
		case <-ctx.Done():
			return
		case <-t.changed:
		case <-timer.C: // a rule's time is up
		}
	}
}

// LookAtAll looks at every control group: for Run.
func (t *Table) LookAtAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.named.Replace(t.names(t.filters), t.name)
}

// Look looks again at some of them: for Run.
func (t *Table) Look(ids []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !selecting(t.filters) {
		return
	}
	for _, id := range ids {
		t.name(id, t.mask(t.filters, id))
	}
}

// name says which filters name a control group. With mu.
func (t *Table) name(id uint64, mask uint32) {
	if err := t.named.Give(id, mask, t.kernel.SetCgroupFilters); err != nil {
		t.log.Warn("filter a control group", "cgroup", id, "error", err)
	}
}
