package filter

import (
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
)

// Status of a rule.
type Status struct {
	Rule
	Source   Source
	Filtered uint64 // events, in all; of kernel.Rank those that got another priority
	Cgroups  int    // that it names now, where it asks for some
}

// Count is how many events a rule has filtered, or given another priority.
type Count struct {
	Source   Source
	Name     string // "": all other rules of the source together
	Filtered uint64
}

// Counts tells of the first MaxCounts rules of the configuration and of callers by their
// names, as long as they are there, and of all others in a sum for each source, which
// goes on when they end.
func (t *Table) Counts() ([]Count, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	hits, err := t.hits()
	if err != nil {
		return nil, err
	}
	var out []Count
	rest := t.ended
	var some [sources]bool
	add := func(e *entry, n uint64) {
		if e.alone {
			out = append(out, Count{e.source, e.Name, e.before + n})
			return
		}
		some[e.source] = true
		rest[e.source] += e.before + n
	}
	for i, e := range t.filters {
		add(e, hits.Filters[i])
	}
	for i, e := range t.quick {
		add(e, hits.Quick[i])
	}
	for s, n := range rest {
		if some[s] || n > 0 {
			out = append(out, Count{Source: Source(s), Filtered: n})
		}
	}
	return out, nil
}

// hits of the rules in force, by place. With mu.
func (t *Table) hits() (kernel.Hits, error) {
	hits, err := t.kernel.FilterHits()
	if err == nil && (len(hits.Filters) != len(t.filters) || len(hits.Quick) != len(t.quick)) {
		err = errTorn
	}
	return hits, err
}

// List gives all rules, in the order in which they decide.
func (t *Table) List() ([]Status, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	hits, err := t.hits()
	if err != nil {
		return nil, err
	}
	var out []Status
	add := func(e *entry, place int, n uint64) {
		s := Status{Rule: e.Rule, Source: e.source, Filtered: e.before + n}
		if place >= 0 && e.selects() {
			for _, mask := range t.named {
				if mask&(1<<place) != 0 {
					s.Cgroups++
				}
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
