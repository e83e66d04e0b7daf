package filter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Kernel does the filtering; *kernel.Kernel does.
type Kernel interface {
	SetFilters(kernel.Filters) (ended kernel.Hits, err error)
	SetCgroupFilters(cgroup uint64, mask uint32) error
	FilterHits() (kernel.Hits, error)
}

// Inventory says which control groups there are, and whose; *inventory.Inventory does.
type Inventory interface {
	Cgroups() []*protov1.HostFact
	Lookup(id uint64) *inventory.Cgroup
	Get(*protov1.ContainerRef) (inventory.View, bool)
	Observe(inventory.Observer) (stop func())
}

// Source is who asks for filters. Those of the first come before those of the next.
type Source uint8

const (
	Config Source = iota
	API
	Sampler
	sources
)

// String is the source's name.
func (s Source) String() string { return [...]string{"config", "api", "sampler"}[s] }

// Status of a rule.
type Status struct {
	Rule
	Source   Source
	Filtered uint64 // events, in all
	Cgroups  int    // that it names now, where it asks for some
}

// Table is safe for use by several goroutines.
type Table struct {
	kernel    Kernel
	inventory Inventory
	log       *slog.Logger
	now       func() time.Time
	changed   chan struct{} // rules
	cgroups   chan change
	missed    atomic.Bool // changes of control groups: look at all

	mu      sync.Mutex
	rules   [sources][]*entry
	filters []*entry          // in force, by place
	quick   []*entry          // the same of those by one value
	named   map[uint64]uint32 // control groups, by the filters that name them
}

// entry is a rule and what it has filtered under earlier sets.
type entry struct {
	Rule
	source Source
	before uint64
}

// change of what the inventory knows: one of the two.
type change struct {
	cgroup    uint64
	container *protov1.ContainerRef
}

// queueSize is how many changes may wait; when more do, all is looked at.
const queueSize = 1024

// New makes a table without a rule. Run follows the control groups.
func New(k Kernel, i Inventory, log *slog.Logger) *Table {
	return &Table{
		kernel: k, inventory: i, log: log, now: time.Now, changed: make(chan struct{}, 1),
		cgroups: make(chan change, queueSize), named: map[uint64]uint32{},
	}
}

// ErrNoRoom says that there are as many rules as the kernel takes.
var ErrNoRoom = errors.New("there is no room for more filters")

// Set replaces the rules of a source, all at once. One that goes on under its name goes
// on counting.
func (t *Table) Set(s Source, rules []Rule) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.rules[s]
	next := make([]*entry, len(rules))
	for i, r := range rules {
		next[i] = &entry{Rule: r, source: s}
	}
	t.rules[s] = next
	if err := t.apply(); err != nil {
		t.rules[s] = before
		return err
	}
	for _, e := range next {
		if i := slices.IndexFunc(before, func(b *entry) bool { return b.Name == e.Name }); i >= 0 {
			e.before += before[i].before
		}
	}
	return nil
}

// Put adds a rule of a source, or replaces the one of that name.
func (t *Table) Put(s Source, r Rule) error {
	t.mu.Lock()
	rules := make([]Rule, 0, len(t.rules[s])+1)
	for _, e := range t.rules[s] {
		if e.Name != r.Name {
			rules = append(rules, e.Rule)
		}
	}
	t.mu.Unlock()
	return t.Set(s, append(rules, r))
}

// Remove takes a rule of a source out, and tells whether it was there.
func (t *Table) Remove(s Source, name string) (bool, error) {
	t.mu.Lock()
	var rules []Rule
	found := false
	for _, e := range t.rules[s] {
		if e.Name == name {
			found = true
			continue
		}
		rules = append(rules, e.Rule)
	}
	t.mu.Unlock()
	if !found {
		return false, nil
	}
	return true, t.Set(s, rules)
}

// apply compiles all rules into the kernel. With mu.
func (t *Table) apply() error {
	var next kernel.Filters
	var filters, quick []*entry
	for s := range sources {
		for _, e := range t.rules[s] {
			// What the configuration says is in its order; the order of what comes
			// after it matters to nobody.
			if q, ok := e.quick(); ok && s != Config {
				next.Quick, quick = append(next.Quick, q), append(quick, e)
				continue
			}
			next.Filters, filters = append(next.Filters, e.compiled()), append(filters, e)
		}
	}
	if len(filters) > kernel.MaxFilters || len(quick) > kernel.MaxQuick {
		return fmt.Errorf("%w: %d, and %d by one value; at most %d and %d", ErrNoRoom, len(filters), len(quick), kernel.MaxFilters, kernel.MaxQuick)
	}
	named := t.names(filters)
	next.Cgroups = make(map[uint64]uint32, len(named))
	for id, mask := range named {
		next.Cgroups[id] = mask
	}
	ended, err := t.kernel.SetFilters(next)
	for i, n := range ended.Filters {
		t.filters[i].before += n
	}
	for i, n := range ended.Quick {
		t.quick[i].before += n
	}
	if err != nil {
		return err
	}
	t.filters, t.quick, t.named = filters, quick, named
	select {
	case t.changed <- struct{}{}:
	default:
	}
	return nil
}

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
	if g == nil {
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
		case <-timer.C:
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

func (t *Table) hearCgroup(f *protov1.HostFact) { t.queue(change{cgroup: f.GetCgroup().GetId()}) }

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

// lookAtAll looks at every control group.
func (t *Table) lookAtAll() {
	for _, fact := range t.inventory.Cgroups() {
		t.look(change{cgroup: fact.GetCgroup().GetId()})
	}
}

// look looks again at what a change is about.
func (t *Table) look(c change) {
	t.mu.Lock()
	defer t.mu.Unlock()
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
		mask := t.mask(t.filters, id)
		if mask == t.named[id] {
			continue
		}
		if err := t.kernel.SetCgroupFilters(id, mask); err != nil && !errors.Is(err, kernel.ErrNoCgroup) {
			t.log.Warn("filter a control group", "cgroup", id, "error", err)
			continue
		}
		if t.named[id] = mask; mask == 0 {
			delete(t.named, id)
		}
	}
}

// expire takes out the rules whose time is up, and gives the time until the next is.
func (t *Table) expire() time.Duration {
	const longest = time.Hour
	wait := longest
	for s := range sources {
		t.mu.Lock()
		var rest []Rule
		now, over := t.now(), false
		for _, e := range t.rules[s] {
			switch {
			case e.Until.IsZero():
			case !now.Before(e.Until):
				over = true
				continue
			default:
				wait = min(wait, e.Until.Sub(now))
			}
			rest = append(rest, e.Rule)
		}
		t.mu.Unlock()
		if !over {
			continue
		}
		if err := t.Set(s, rest); err != nil {
			t.log.Error("end filters whose time is up", "error", err)
			wait = min(wait, time.Second) // try again
		}
	}
	return wait
}

// List gives all rules, in the order in which they decide.
func (t *Table) List() ([]Status, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	hits, err := t.kernel.FilterHits()
	if err != nil {
		return nil, err
	}
	var out []Status
	add := func(e *entry, place int, n uint64) {
		s := Status{Rule: e.Rule, Source: e.source, Filtered: e.before + n}
		for _, mask := range t.named {
			if place >= 0 && mask&(1<<place) != 0 {
				s.Cgroups++
			}
		}
		out = append(out, s)
	}
	for i, e := range t.filters {
		add(e, i, hits.Filters[i])
	}
	for i, e := range t.quick {
		add(e, -1, hits.Quick[i])
	}
	return out, nil
}
