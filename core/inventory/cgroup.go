package inventory

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// State says what is known of a cgroup.
type State uint8

const (
	Unknown State = iota // never heard of
	Host                 // no container's
	// Pending: named like a container that nobody has described, or so new that
	// its owner is still being looked for, or that a claimant has yet to say whether
	// it is one of its containers'.
	Pending
	Known // a container's
)

// Cgroup is one cgroup of the default hierarchy.
type Cgroup struct {
	ID   uint64
	Path string // from the hierarchy's root

	hints   []string // container ids in the path, from the root on
	owner   atomic.Pointer[container]
	settled atomic.Bool // the owner has been looked for
	waived  atomic.Bool
	execed  atomic.Bool
	asked   atomic.Uint64 // the claimants that have yet to answer, a bit each

	// Under the inventory's lock.
	node    *node     // nil: the queue or Scan has yet to bring it
	removed time.Time // zero: it is there
	scan    uint64    // that saw it last, or in which it came
	awaited bool      // as it was made, it was no container's that was there
}

// Workload is the container that the cgroup belongs to, nil when it is none's or
// not known.
func (c *Cgroup) Workload() *Workload {
	if o := c.owner.Load(); o != nil {
		return o.workload.Load()
	}
	return nil
}

// State of the cgroup.
func (c *Cgroup) State() State {
	settled := c.settled.Load() // before the owner, who is found first
	switch {
	case c.owner.Load() != nil:
		return Known
	case len(c.hints) > 0 || !settled || c.asked.Load() != 0:
		return Pending
	}
	return Host
}

// Hint is the container id that the path names, "" when it names none.
func (c *Cgroup) Hint() string {
	if len(c.hints) == 0 {
		return ""
	}
	return c.hints[0]
}

// Waive says that events of this cgroup need not wait for metadata any more:
// they waited once, and none came.
func (c *Cgroup) Waive() { c.waived.Store(true) }

// Waived tells whether Waive was called.
func (c *Cgroup) Waived() bool { return c.waived.Load() }

// FirstExec tells, once, that an exec in this cgroup is the first that was met.
func (c *Cgroup) FirstExec() bool { return !c.execed.Load() && c.execed.CompareAndSwap(false, true) }

// hints are the container ids in a path, from the root on.
func hints(path string) (out []string) {
	for name := range strings.SplitSeq(path, "/") {
		if h := hint(name); h != "" {
			out = append(out, h)
		}
	}
	return out
}

// hint is the container id that the name of a cgroup tells, or "". Runtimes name
// the cgroup of a container by its id of 64 hex digits, some with a word before
// it (crio-, libpod-, docker-, cri-containerd-) and some with .scope behind. It
// is a hint only, since anybody may name a cgroup like this: it counts when a
// runtime has told of such a container. What watches over a container from outside
// (crio-conmon-, libpod-conmon-) is none of it.
func hint(name string) string {
	name = strings.TrimSuffix(name, ".scope")
	if at := strings.LastIndexByte(name, '-'); at >= 0 {
		if strings.HasSuffix(name[:at], "conmon") {
			return ""
		}
		name = name[at+1:]
	}
	if !unique(name) {
		return ""
	}
	return name
}

// unique tells whether a container id is so by itself, in every scope: 64 hex
// digits.
func unique(id string) bool {
	if len(id) != 64 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// shards hold the cgroups by id. Reading takes no lock. Writing copies one shard
// under a lock of its own, for a few microseconds.
type shards [1024]struct {
	writing sync.Mutex
	cgroups atomic.Pointer[map[uint64]*Cgroup]
}

func (s *shards) init() {
	none := map[uint64]*Cgroup{} // never written to: writers copy
	for n := range s {
		s[n].cgroups.Store(&none)
	}
}

func (s *shards) get(id uint64) *Cgroup {
	return (*s[id%uint64(len(s))].cgroups.Load())[id]
}

// add gives the cgroup with an id, and tells whether it has just been made.
func (s *shards) add(id uint64, path string) (g *Cgroup, made bool) {
	shard := &s[id%uint64(len(s))]
	shard.writing.Lock()
	defer shard.writing.Unlock()
	old := *shard.cgroups.Load()
	if g := old[id]; g != nil {
		return g, false
	}
	g = &Cgroup{ID: id, Path: path, hints: hints(path)}
	next := maps.Clone(old)
	next[id] = g
	shard.cgroups.Store(&next)
	return g, true
}

func (s *shards) drop(id uint64) {
	shard := &s[id%uint64(len(s))]
	shard.writing.Lock()
	defer shard.writing.Unlock()
	next := maps.Clone(*shard.cgroups.Load())
	delete(next, id)
	shard.cgroups.Store(&next)
}

// each calls f with every cgroup that was there when its shard's turn came.
func (s *shards) each(f func(*Cgroup)) {
	for n := range s {
		for _, g := range *s[n].cgroups.Load() {
			f(g)
		}
	}
}

// link puts a cgroup that was made at a time, zero if that is not known, at its place in
// the tree, where its owner is found.
func (i *Inventory) link(g *Cgroup, at time.Time) {
	if g.node != nil {
		return
	}
	n := i.at(g.Path)
	n.cgroups = append(n.cgroups, g)
	g.node, g.scan = n, i.scans
	i.stats.Cgroups++
	g.asked.Store(i.claimants.asked(i.options.Now()))
	i.settleNode(n)
	o := g.owner.Load()
	g.awaited = o == nil || !o.removed.IsZero() && (at.IsZero() || !at.Before(o.removed))
	i.tellCgroup(g, protov1.CgroupFact_CHANGE_CREATED, at)
}

// remove notes that a cgroup is gone since a time. It is remembered for the grace period.
func (i *Inventory) remove(g *Cgroup, at time.Time) {
	if !g.removed.IsZero() {
		return
	}
	i.link(g, time.Time{})
	g.removed = i.options.Now()
	i.leaving = append(i.leaving, g)
	i.stats.Cgroups--
	i.tellCgroup(g, protov1.CgroupFact_CHANGE_REMOVED, at)
}

// forgetCgroup ends the memory of a cgroup.
func (i *Inventory) forgetCgroup(g *Cgroup) {
	i.cgroups.drop(g.ID)
	if o := g.owner.Load(); o != nil {
		delete(o.cgroups, g)
	}
	i.tree.leave(g)
	i.tree.mark(g.node) // its id may have been what decided
}
