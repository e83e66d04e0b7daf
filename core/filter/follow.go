package filter

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// change of what the inventory knows: one of the two.
type change struct {
	cgroup    uint64
	removed   bool // the cgroup
	container *protov1.ContainerRef
}

// queueSize is how many changes may wait; when more do, all is looked at.
const queueSize = 1024

// names gives the control groups that filters name, of all there are.
func (t *Table) names(filters []*entry) map[uint64]uint32 {
	named := map[uint64]uint32{}
	if !slices.ContainsFunc(filters, func(e *entry) bool { return e.selects() }) {
		return named
	}
	for _, fact := range t.inventory.Cgroups() {
		if id := fact.GetCgroup().GetId(); id != 0 {
			if mask := t.mask(filters, id); mask != 0 {
				named[id] = mask
			}
		}
	}
	return named
}

// mask of the filters that name a control group.
func (t *Table) mask(filters []*entry, id uint64) (mask uint32) {
	g := t.inventory.Lookup(id)
	if g == nil || t.gone[id] {
		return 0
	}
	w := g.Workload()
	for place, e := range filters {
		if e.selects() && e.covers(g.Path, w) {
			mask |= 1 << place
		}
	}
	return mask
}

// Run follows the control groups and ends what has a time, until ctx is done.
func (t *Table) Run(ctx context.Context) {
	stop := t.inventory.Observe(inventory.Observer{Workload: t.hearContainer, Cgroup: t.hearCgroup})
	defer stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(t.expire())
		select {
		case <-ctx.Done():
			return
		case <-t.changed:
			if t.missed.Swap(false) {
				t.lookAtAll()
			}
		case <-timer.C: // a rule's time is up, or an hour has passed
			t.lookAtAll()
		case c := <-t.cgroups:
			t.look(c)
		}
	}
}

// hearContainer and hearCgroup are called under the inventory's lock.
func (t *Table) hearContainer(c *protov1.InventoryChange) {
	if d := c.GetContainer(); d != nil {
		t.queue(change{container: &protov1.ContainerRef{Id: d.GetId(), Scope: d.GetScope()}})
	}
}

func (t *Table) hearCgroup(f *protov1.HostFact) {
	g := f.GetCgroup()
	t.queue(change{cgroup: g.GetId(), removed: g.GetChange() == protov1.CgroupFact_CHANGE_REMOVED})
}

func (t *Table) queue(c change) {
	select {
	case t.cgroups <- c:
	default:
		t.missed.Store(true)
		select {
		case t.changed <- struct{}{}:
		default:
		}
	}
}

// lookAtAll looks at every control group, and forgets those that are gone.
func (t *Table) lookAtAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep()
	next := t.names(t.filters)
	for id := range t.named {
		if _, still := next[id]; !still {
			t.name(id, 0)
		}
	}
	for id, mask := range next {
		t.name(id, mask)
	}
}

// look looks again at what a change is about.
func (t *Table) look(c change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.removed {
		// A change of its container may yet come, and would name it again.
		if t.gone[c.cgroup] = true; len(t.gone) > t.most {
			t.sweep()
		}
	}
	if !slices.ContainsFunc(t.filters, func(e *entry) bool { return e.selects() }) {
		return
	}
	ids := []uint64{c.cgroup}
	if c.container != nil {
		v, ok := t.inventory.Get(c.container)
		if !ok {
			return
		}
		ids = v.CgroupIDs
	}
	for _, id := range ids {
		t.name(id, t.mask(t.filters, id))
	}
}

// name says which filters name a control group. With mu.
func (t *Table) name(id uint64, mask uint32) {
	if mask == t.named[id] {
		return
	}
	if err := t.kernel.SetCgroupFilters(id, mask); err != nil && !errors.Is(err, kernel.ErrNoCgroup) {
		t.log.Warn("filter a control group", "cgroup", id, "error", err)
		return
	}
	if t.named[id] = mask; mask == 0 {
		delete(t.named, id)
	}
}

// sweep forgets control groups that the inventory has forgotten. With mu.
func (t *Table) sweep() {
	for id := range t.gone {
		if t.inventory.Lookup(id) == nil {
			delete(t.gone, id)
		}
	}
	t.most = 2*len(t.gone) + queueSize
}
