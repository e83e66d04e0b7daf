package load

import (
	"errors"
	"log/slog"
	"slices"

	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
)

// groups gives numbers, which the kernel knows, to the groups that have rows of
// their own, and puts their cgroups into them.
type groups struct {
	kernel  Kernel
	log     *slog.Logger
	numbers map[string]uint32
	names   map[uint32]string   // of those that ended since the last report, too
	cgroups map[string][]uint64 // of every group, as of the last report
	members map[string]map[uint64]bool
	free    []uint32
	ended   []uint32 // since the last report
}

func newGroups(k Kernel, log *slog.Logger) *groups {
	_, capacity := k.Capacity()
	g := &groups{
		kernel: k, log: log, numbers: map[string]uint32{}, names: map[uint32]string{},
		members: map[string]map[uint64]bool{},
	}
	for n := capacity; n > 0; n-- {
		g.free = append(g.free, uint32(n))
	}
	return g
}

// admit gives numbers to groups that have none, as far as there is room and they have a
// cgroup, in the order of their names.
func (g *groups) admit(names map[string]bool) {
	var news []string
	for name := range names {
		if g.numbers[name] == 0 && len(g.cgroups[name]) > 0 {
			news = append(news, name)
		}
	}
	slices.Sort(news)
	for _, name := range news[:min(len(news), len(g.free))] {
		n := g.free[len(g.free)-1]
		g.free = g.free[:len(g.free)-1]
		g.numbers[name], g.names[n] = n, name
	}
}

// retain ends the groups that are not among those used. Their numbers are used again
// only after the next report, which tells what their rows counted.
func (g *groups) retain(used map[string]bool) {
	for name, n := range g.numbers {
		if used[name] {
			continue
		}
		for cgroup := range g.members[name] {
			g.put(cgroup, 0)
		}
		delete(g.members, name)
		delete(g.numbers, name)
		g.ended = append(g.ended, n)
	}
}

// reported takes the cgroups of all groups, after a report was made.
func (g *groups) reported(cgroups map[string][]uint64) {
	for _, n := range g.ended {
		delete(g.names, n)
	}
	slices.Sort(g.ended)
	g.free = append(g.free, g.ended...)
	g.ended = nil
	g.cgroups = cgroups
	g.join()
}

// join puts the cgroups of groups with a number into them, that are not there yet, and
// takes out those of which nothing is known any more.
func (g *groups) join() {
	for name, n := range g.numbers {
		there := g.members[name]
		now := make(map[uint64]bool, len(g.cgroups[name]))
		for _, c := range g.cgroups[name] {
			if now[c] = true; !there[c] {
				g.put(c, n)
			}
		}
		for c := range there {
			if !now[c] { // nothing was seen of it for long: its number may be another's soon
				g.put(c, 0)
			}
		}
		g.members[name] = now
	}
}

func (g *groups) put(cgroup uint64, n uint32) {
	if err := g.kernel.SetGroup(cgroup, n); err != nil && !errors.Is(err, kernel.ErrNoCgroup) {
		g.log.Warn("a cgroup stays in the pooled rows", "cgroup", cgroup, "error", err)
	}
}
