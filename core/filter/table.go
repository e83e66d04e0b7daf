package filter

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/selector"
)

// Kernel does the filtering; *kernel.Kernel does.
type Kernel interface {
	SetFilters(kernel.Filters) (ended kernel.Hits, err error)
	SetCgroupFilters(cgroup uint64, mask uint32) error
	FilterHits() (kernel.Hits, error)
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

// Table is safe for use by several goroutines.
type Table struct {
	kernel   Kernel
	follower *selector.Follower
	log      *slog.Logger
	now      func() time.Time
	changed  chan struct{} // rules

	mu      sync.Mutex
	rules   [sources][]*entry
	filters []*entry        // in force, by place
	quick   []*entry        // the same of those by one value
	named   selector.Given  // control groups, by the filters that name them
	alone   int             // entries with a count of their own
	ended   [sources]uint64 // what those without one have filtered that have ended
}

// entry is a rule and what it has filtered under earlier sets.
type entry struct {
	Rule
	source Source
	before uint64
	alone  bool // Counts tells of it by its name
}

// New makes a table without a rule. Run follows the control groups.
func New(k Kernel, i selector.Inventory, log *slog.Logger) *Table {
	return &Table{
		kernel: k, follower: selector.Follow(i), log: log, now: time.Now, changed: make(chan struct{}, 1),
		named: selector.Given{},
	}
}

// ErrNoRoom says that there are as many rules as the kernel takes.
var ErrNoRoom = errors.New("there is no room for more filters")

// Set replaces the rules of a source, all at once. One that goes on under its name goes
// on counting.
func (t *Table) Set(s Source, rules []Rule) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.set(s, rules)
}

// set is Set with mu.
func (t *Table) set(s Source, rules []Rule) error {
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
	was := make(map[string]*entry, len(before))
	for _, e := range before {
		was[e.Name] = e
	}
	var fresh []*entry
	for _, e := range next {
		b := was[e.Name]
		if b == nil {
			fresh = append(fresh, e)
			continue
		}
		e.before, e.alone = e.before+b.before, b.alone
		delete(was, e.Name)
	}
	for _, e := range was { // has ended
		if e.alone {
			t.alone--
		} else {
			t.ended[s] += e.before
		}
	}
	for _, e := range fresh {
		if s != Sampler && t.alone < MaxCounts {
			e.alone = true
			t.alone++
		}
	}
	return nil
}

// Put adds rules of a source, all or none; one replaces another of its name, and takes
// its place. It gives the names that there were before.
func (t *Table) Put(s Source, add ...Rule) (replaced []string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rules := make([]Rule, 0, len(t.rules[s])+len(add))
	at := make(map[string]int, cap(rules))
	for _, e := range t.rules[s] {
		at[e.Name] = len(rules)
		rules = append(rules, e.Rule)
	}
	for _, r := range add {
		if i, there := at[r.Name]; there {
			replaced, rules[i] = append(replaced, r.Name), r
			continue
		}
		at[r.Name] = len(rules)
		rules = append(rules, r)
	}
	return replaced, t.set(s, rules)
}

// Remove takes a rule of a source out, and tells whether it was there and how many
// events it has filtered.
func (t *Table) Remove(s Source, name string) (filtered uint64, found bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.rules[s]
	i := slices.IndexFunc(before, func(e *entry) bool { return e.Name == name })
	if i < 0 {
		return 0, false, nil
	}
	if err := t.set(s, rulesOf(slices.Delete(slices.Clone(before), i, i+1))); err != nil {
		return 0, true, err
	}
	return before[i].before, true, nil
}

// Has tells whether a source has a rule of a name.
func (t *Table) Has(s Source, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.rules[s], func(e *entry) bool { return e.Name == name })
}

func rulesOf(entries []*entry) []Rule {
	out := make([]Rule, len(entries))
	for i, e := range entries {
		out[i] = e.Rule
	}
	return out
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
	t.follower.Want(selecting(filters) || selecting(t.filters)) // before all are looked at
	defer func() { t.follower.Want(selecting(t.filters)) }()
	named := t.names(filters)
	next.Cgroups = make(map[uint64]uint32, len(named))
	for id, mask := range named {
		next.Cgroups[id] = mask
	}
	ended, err := t.kernel.SetFilters(next)
	if len(ended.Filters) == len(t.filters) && len(ended.Quick) == len(t.quick) {
		for i, n := range ended.Filters {
			t.filters[i].before += n
		}
		for i, n := range ended.Quick {
			t.quick[i].before += n
		}
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

// expire takes out the rules whose time is up, and gives the time until the next is.
func (t *Table) expire() time.Duration {
	const longest = time.Hour
	wait := longest
	for s := range sources {
		next, err := t.expireOf(s)
		if err != nil {
			t.log.Error("end filters whose time is up", "error", err)
			next = time.Second // try again
		}
		wait = min(wait, next)
	}
	return wait
}

// expireOf does so for one source.
func (t *Table) expireOf(s Source) (next time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next = math.MaxInt64
	now := t.now()
	rest := make([]Rule, 0, len(t.rules[s]))
	for _, e := range t.rules[s] {
		switch {
		case e.Until.IsZero():
		case !now.Before(e.Until):
			continue
		default:
			next = min(next, e.Until.Sub(now))
		}
		rest = append(rest, e.Rule)
	}
	if len(rest) < len(t.rules[s]) {
		err = t.set(s, rest)
	}
	return next, err
}

// MaxCounts is of how many rules Counts tells by their names.
const MaxCounts = 256

// errTorn says that setting filters went wrong after they had come into force.
var errTorn = errors.New("the kernel's filters are not those that were set last: add or remove one, or reload, to set them again")
