// Package inventory knows which workload a cgroup belongs to: it joins the
// kernel's cgroups with what discoverers and detectors tell.
//
// It owns every description of a container, pod and service in the daemon.
// Descriptions change under one lock; the pipeline's question, whose cgroup is
// this, takes none: it reads an immutable Workload through two atomic loads. The
// inventory never asks anybody anything; what it does not know it learns when
// it is told.
package inventory

import (
	"sync"
	"sync/atomic"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	shards = 256
	// grace is how long a cgroup or a container that is gone is remembered, for
	// the events that are still on their way.
	grace = 10 * time.Second
	// most containers that are remembered; beyond it new ones are counted and
	// left out.
	most = 65536
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

// State says what is known of a cgroup.
type State uint8

const (
	Unknown State = iota // never heard of
	Host                 // no container's
	Pending              // named like a container that nobody has described
	Known                // a container's
)

// Cgroup is one cgroup of the default hierarchy.
type Cgroup struct {
	ID   uint64
	Path string

	hints    []string // container ids in the path, from the root on
	workload atomic.Pointer[Workload]
	owner    *container // that workload is of; under the inventory's lock
	waived   atomic.Bool
	removed  time.Time // under the lock; zero: it is there
}

// Workload is the container that the cgroup belongs to, nil when it is none's or
// not known.
func (c *Cgroup) Workload() *Workload { return c.workload.Load() }

// State of the cgroup.
func (c *Cgroup) State() State {
	switch {
	case c.workload.Load() != nil:
		return Known
	case len(c.hints) > 0:
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

// Options of New.
type Options struct {
	// Encode makes the form of a workload that exporters put into every event.
	// It is called once for each change, under the inventory's lock.
	Encode func(*Workload) []byte
	// Now is the clock.
	Now func() time.Time
}

// Inventory is safe for use by several goroutines.
type Inventory struct {
	options Options
	cgroups [shards]atomic.Pointer[map[uint64]*Cgroup]

	mu         sync.Mutex
	byPath     map[string]*Cgroup
	byHint     map[string]map[*Cgroup]struct{}
	leaving    []*Cgroup // removed, in order of time
	containers map[key]*container
	byID       map[string]map[*container]struct{}
	gone       []*container // removed, in order of time
	pods       map[string]*pod
	services   map[string]*service
	sources    map[string]*source
	observers  map[*Observer]struct{}
	stats      Stats
}

// Stats of the inventory.
type Stats struct {
	Containers uint64 // described now
	Cgroups    uint64 // there now
	Corrected  uint64 // cgroups whose owner turned out to be another
	Refused    uint64 // descriptions left out: too many containers
}

// New makes an empty inventory.
func New(o Options) *Inventory {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Encode == nil {
		o.Encode = func(*Workload) []byte { return nil }
	}
	i := &Inventory{
		options:    o,
		byPath:     map[string]*Cgroup{},
		byHint:     map[string]map[*Cgroup]struct{}{},
		containers: map[key]*container{},
		byID:       map[string]map[*container]struct{}{},
		pods:       map[string]*pod{},
		services:   map[string]*service{},
		sources:    map[string]*source{},
		observers:  map[*Observer]struct{}{},
	}
	for s := range i.cgroups {
		i.cgroups[s].Store(&map[uint64]*Cgroup{})
	}
	return i
}

// Lookup gives the cgroup with an id, nil when it was never told. It takes no
// lock and allocates nothing.
func (i *Inventory) Lookup(id uint64) *Cgroup {
	return (*i.cgroups[id%shards].Load())[id]
}

// Stats are the counts as of now.
func (i *Inventory) Stats() Stats {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.stats
	s.Cgroups = uint64(len(i.byPath))
	for _, c := range i.containers {
		if c.removed.IsZero() {
			s.Containers++
		}
	}
	return s
}

// View is a container for those who list them.
type View struct {
	*Workload
	CgroupIDs []uint64
}

// Containers lists the containers that are described now.
func (i *Inventory) Containers() []View {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := make([]View, 0, len(i.containers))
	for _, c := range i.containers {
		if !c.removed.IsZero() || c.workload == nil {
			continue
		}
		v := View{Workload: c.workload}
		for g := range c.cgroups {
			v.CgroupIDs = append(v.CgroupIDs, g.ID)
		}
		out = append(out, v)
	}
	return out
}

// View gives the container of a cgroup as Containers would.
func (i *Inventory) View(g *Cgroup) (View, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if g == nil || g.owner == nil || g.owner.workload == nil {
		return View{}, false
	}
	v := View{Workload: g.owner.workload}
	for o := range g.owner.cgroups {
		v.CgroupIDs = append(v.CgroupIDs, o.ID)
	}
	return v, true
}
