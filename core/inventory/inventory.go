// Package inventory knows which workload a cgroup belongs to: it joins the
// kernel's cgroups with what discoverers and detectors tell.
//
// It owns every description of a container, pod and service in the daemon.
// Descriptions change under one lock, which is held for about a millisecond at
// most and never while the pipeline waits: its question, whose cgroup is this,
// takes none and reads an immutable Workload through a few atomic loads, and what
// the kernel tells of cgroups goes into a bounded queue. The inventory never asks
// a runtime anything; what it does not know it learns when it is told.
package inventory

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	// grace is how long a cgroup or a container that is gone is remembered, for
	// the events that are still on their way.
	grace = 10 * time.Second
	// most containers that are remembered, and most pods, and most services;
	// beyond it new ones are counted and left out.
	most = 65536
	// staleTTL is what Options.StaleTTL is by itself.
	staleTTL = 5 * time.Minute
)

// Workload is a container as all its sources have described it. It is immutable.
type Workload struct {
	Container *protov1.Container
	Pod       *protov1.Pod      // nil: not known
	Mesh      *protov1.MeshFact // nil: in no mesh
	Sources   []string          // the discoverers that described it, by rank
	Fields    map[string]string // field -> the source it is from; nil: all from Sources[0]
	Stale     bool              // a source is away: this is what it said last
	Fragment  []byte            // what Options.Encode made of it
}

// Named tells whether the container's id, name and image are known.
func (w *Workload) Named() bool {
	if w == nil {
		return false
	}
	c := w.Container
	image := c.GetImage()
	return c.GetId() != "" && c.GetName() != "" && (image.GetName() != "" || image.GetDigest() != "" || image.GetId() != "")
}

// Options of New.
type Options struct {
	// Encode makes the form of a workload that exporters put into every event.
	// It is called once for each change, under the inventory's lock.
	Encode func(*Workload) []byte
	// Rescan is called when cgroups may have been missed: Scan should be called
	// soon. It must not block and must not call the inventory. nil: nobody is
	// asked.
	Rescan func()
	// StaleTTL is how long the descriptions of a discoverer that is away stay in
	// force; 0: five minutes.
	StaleTTL time.Duration
	// Happened is called for everything that happened to containers, in order, under
	// the inventory's lock: it must not block and must not call the inventory. nil:
	// nobody listens.
	Happened func(Happening)
	// Now is the clock of Run's sweeps; nil: the system's.
	Now func() time.Time
}

// Inventory is safe for use by several goroutines. Run does what nobody waits for.
type Inventory struct {
	options Options
	cgroups shards
	news    chan news // what the kernel told and has not been applied
	missed  atomic.Uint64
	wake    chan struct{} // of Run

	scanning sync.Mutex // one Scan at a time
	mount    atomic.Pointer[string]

	mu         sync.Mutex
	since      time.Time // that the lock is held
	tree       tree
	leaving    []*Cgroup // removed, in order of time
	containers map[key]*container
	byID       map[string]map[*container]struct{}
	byPod      map[string]map[*container]struct{}
	gone       []departure // of facets, in order of time
	unmade     []*container
	pods       map[string]*pod
	services   map[string]*service
	sources    map[string]*source
	claimants  claimants
	observers  map[*Observer]struct{}
	pulls      pulls
	scans      uint64
	stats      Stats
}

// Stats of the inventory.
type Stats struct {
	Containers uint64 // described now
	Pods       uint64 // described now
	Services   uint64 // described now
	Cgroups    uint64 // there now
	Corrected  uint64 // cgroups whose owner turned out to be another
	Refused    uint64 // descriptions left out: too many containers, pods or services
	Unplaced   uint64 // mesh facts about workloads that are not known
	Queued     uint64 // changes of cgroups that wait to be applied, of QueueSize
	Missed     uint64 // changes of cgroups that found the queue full: a rescan finds them
	// Words of discoverers on their containers' lives that were left out: of what
	// another source told before or tells better, and of what is not known.
	LifeRepeated, LifeStrange uint64
}

// New makes an empty inventory.
func New(o Options) *Inventory {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Encode == nil {
		o.Encode = func(*Workload) []byte { return nil }
	}
	if o.Happened == nil {
		o.Happened = func(Happening) {}
	}
	if o.Rescan == nil {
		o.Rescan = func() {}
	}
	if o.StaleTTL == 0 {
		o.StaleTTL = staleTTL
	}
	i := &Inventory{
		options:    o,
		news:       make(chan news, QueueSize),
		wake:       make(chan struct{}, 1),
		tree:       newTree(),
		containers: map[key]*container{},
		byID:       map[string]map[*container]struct{}{},
		byPod:      map[string]map[*container]struct{}{},
		pods:       map[string]*pod{},
		services:   map[string]*service{},
		sources:    map[string]*source{},
		observers:  map[*Observer]struct{}{},
	}
	i.cgroups.init()
	return i
}

// Lookup gives the cgroup with an id, nil when it was never told. It takes no
// lock and allocates nothing.
func (i *Inventory) Lookup(id uint64) *Cgroup { return i.cgroups.get(id) }

// Stats are the counts as of now.
func (i *Inventory) Stats() Stats {
	i.lock()
	defer i.mu.Unlock()
	s := i.stats
	s.Services = uint64(len(i.services))
	s.Queued, s.Missed = uint64(len(i.news)), i.missed.Load()
	return s
}

// View is a container for those who list them.
type View struct {
	*Workload
	CgroupIDs []uint64 // in ascending order
	handle    Handle
}

// Containers lists the containers that are described now.
func (i *Inventory) Containers() []View {
	i.lock()
	defer i.mu.Unlock()
	i.finish()
	out := make([]View, 0, i.stats.Containers)
	for _, c := range i.containers {
		if c.removed.IsZero() {
			out = append(out, c.view())
		}
		i.pause()
	}
	return out
}

// View gives the container of a cgroup as Containers would.
func (i *Inventory) View(g *Cgroup) (View, bool) {
	i.lock()
	defer i.mu.Unlock()
	i.finish()
	if g == nil || g.owner.Load() == nil {
		return View{}, false
	}
	return g.owner.Load().view(), true
}

func (c *container) view() View {
	v := View{Workload: c.workload.Load(), handle: Handle{c}}
	for g := range c.cgroups {
		v.CgroupIDs = append(v.CgroupIDs, g.ID)
	}
	slices.Sort(v.CgroupIDs)
	return v
}
