// Package share divides the budget: a share of it is for the control groups that a
// selector means, a tenant's or those of a group of containers. The package says to the
// kernel how large each share is, finds the control groups that have a part in it, and
// follows as they come and go.
//
// The kernel does the dividing: see kernel.SetShare. The package never sees an event.
package share

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/selector"
)

// Kernel does the dividing; *kernel.Kernel does.
type Kernel interface {
	SetShare(share uint32, portion float64) error
	SetCgroupShare(cgroup uint64, share uint32) error
	ShareKept(share uint32) uint64
}

// Share of the budget.
type Share struct {
	Name string
	// Portion of the budget, above 0 and at most 1, that is for what the selector means,
	// whatever others do. What it does not use is there for all.
	Portion float64
	selector.Selector
}

// View is what there is to tell of a share.
type View struct {
	Share
	Cgroups int    // that have a part in it
	Kept    uint64 // events, since the share is there
}

// Table is safe for use by several goroutines.
type Table struct {
	kernel   Kernel
	follower *selector.Follower
	log      *slog.Logger

	mu     sync.Mutex
	shares []*entry       // in order: the first that means a control group counts
	of     selector.Given // control groups that have a part in a share, by its number
}

// entry is a share in force.
type entry struct {
	Share
	number uint32
	before uint64 // that the kernel had kept under this number
}

// New makes a table without a share. Run follows the control groups.
func New(k Kernel, i selector.Inventory, log *slog.Logger) *Table {
	return &Table{kernel: k, follower: selector.Follow(i), log: log, of: selector.Given{}}
}

// Set replaces all shares; one that goes on under its name goes on counting. There may be
// kernel.MaxShares. After an error those before hold, as far as the kernel could be told.
func (t *Table) Set(shares []Share) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(shares) > kernel.MaxShares {
		return fmt.Errorf("%d shares of the budget: there is room for %d", len(shares), kernel.MaxShares)
	}
	was := make(map[string]*entry, len(t.shares))
	for _, e := range t.shares {
		was[e.Name] = e
	}
	next := make([]*entry, len(shares))
	taken := map[uint32]bool{}
	for i, s := range shares {
		next[i] = &entry{Share: s}
		if b := was[s.Name]; b != nil {
			next[i].number, next[i].before = b.number, b.before
			taken[b.number] = true
			delete(was, s.Name)
		}
	}
	free := uint32(1)
	for _, e := range next {
		if e.number != 0 {
			continue
		}
		for taken[free] {
			free++
		}
		e.number = free
		taken[free] = true
		e.before = t.kernel.ShareKept(free)
	}
	for _, e := range was { // has ended
		if !taken[e.number] {
			if err := t.kernel.SetShare(e.number, 0); err != nil {
				return fmt.Errorf("end share %s of the budget: %w", e.Name, err)
			}
		}
	}
	for _, e := range next {
		if err := t.kernel.SetShare(e.number, e.Portion); err != nil {
			return fmt.Errorf("set share %s of the budget: %w", e.Name, err)
		}
	}
	t.shares = next
	t.follower.Want(len(next) > 0)
	t.lookAtAll()
	return nil
}

// List tells of all shares, in their order.
func (t *Table) List() []View {
	t.mu.Lock()
	defer t.mu.Unlock()
	cgroups := map[uint32]int{}
	for _, number := range t.of {
		cgroups[number]++
	}
	out := make([]View, len(t.shares))
	for i, e := range t.shares {
		out[i] = View{Share: e.Share, Cgroups: cgroups[e.number], Kept: t.kernel.ShareKept(e.number) - e.before}
	}
	return out
}

// Run follows the control groups until ctx is done.
func (t *Table) Run(ctx context.Context) { t.follower.Run(ctx, t) }

// LookAtAll looks at every control group: for Run.
func (t *Table) LookAtAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lookAtAll()
}

// lookAtAll is LookAtAll with mu.
func (t *Table) lookAtAll() {
	next := selector.Given{}
	if len(t.shares) > 0 {
		for _, id := range t.follower.All() {
			if number := t.numberOf(id); number != 0 {
				next[id] = number
			}
		}
	}
	t.of.Replace(next, t.give)
}

// Look looks again at some of them: for Run.
func (t *Table) Look(ids []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.shares) == 0 {
		return
	}
	for _, id := range ids {
		t.give(id, t.numberOf(id))
	}
}

// numberOf is the number of the share that a control group has a part in; 0: of none.
func (t *Table) numberOf(id uint64) uint32 {
	g := t.follower.Lookup(id)
	if g == nil {
		return 0
	}
	w := g.Workload()
	for _, e := range t.shares {
		if e.Covers(g.Path, w) {
			return e.number
		}
	}
	return 0
}

// give gives a control group its part in a share. With mu.
func (t *Table) give(id uint64, number uint32) {
	if err := t.of.Give(id, number, t.kernel.SetCgroupShare); err != nil {
		t.log.Warn("give a control group its share of the budget", "cgroup", id, "error", err)
	}
}
