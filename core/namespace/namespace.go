package namespace

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	// queueSize is how many containers may wait to be looked at; when more change at a
	// time, all are looked at.
	queueSize = 4096
	// mostKept is how many extents of maps are kept in all; where there is no room, a
	// user namespace has no maps.
	mostKept = 1 << 18
)

// Options of New.
type Options struct {
	Inventory *inventory.Inventory
	Host      Host
	// Proc is where the processes are seen; "": /proc.
	Proc string
	// Monotonic is the clock of the events, in nanoseconds.
	Monotonic func() uint64
	// OfPID finds the cgroup of a process; nil: the inventory's.
	OfPID func(pid uint32) (*inventory.Cgroup, error)
	// Now is the clock of retries; nil: the system's.
	Now func() time.Time
}

// Namespaces is safe for use by several goroutines. Run does the reading.
type Namespaces struct {
	options Options
	queue   chan key
	behind  atomic.Bool // a change found no room in the queue
	table   table       // of ByPID

	// Of the goroutine of Run.
	retries map[key]retry
	rounds  []key // whose first process is to be looked for again
	leaving []departure

	mu      sync.RWMutex // held by Run for moments, and by those who ask
	members map[key]*member
	spaces  map[ID]*space
	extents int
	stats   Stats
}

// Stats: totals since the start, but for Containers and Namespaces.
type Stats struct {
	Containers uint64        // whose namespaces are known now
	Namespaces [Types]uint64 // that they are in now, by type
	Read       uint64        // first processes that were read
	Unreadable uint64        // how often one could not be read for want of rights
	Others     uint64        // how often a pid was another process's
	Missed     uint64        // changes that found no room; all were looked at then
	Unmapped   uint64        // user namespaces without room for their maps
}

// key names a container as the inventory does.
type key struct{ scope, id string }

func (k key) ref() *protov1.ContainerRef { return &protov1.ContainerRef{Id: k.id, Scope: k.scope} }

// member is a container with its first process, as it was read. It is not changed, but
// for seen.
type member struct {
	key    key
	handle inventory.Handle
	told   uint32 // the pid that it was described with; 0: none
	since  int64  // when it was started, as described
	pid    uint32
	pids   []uint32 // of the process, from the host's pid namespace to its own
	start  uint64   // of the process, in clock ticks after boot
	set    Set
	seen   atomic.Uint64 // when it was there, on the events' clock
}

// is tells whether a container is as it was when it was read.
func (m *member) is(v inventory.View) bool {
	c := v.Container
	return m.handle == v.Handle() && m.since == c.GetStartedUnixNano() &&
		(m.told == c.GetPid() || c.GetPid() == m.pid || c.GetPid() == 0)
}

// space is a namespace that containers are in.
type space struct {
	members    map[*member]struct{}
	uids, gids Map // of a user namespace that is not the host's
}

// New makes one that knows nothing yet.
func New(o Options) *Namespaces {
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	if o.OfPID == nil {
		o.OfPID = o.Inventory.OfPID
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	n := &Namespaces{
		options: o, queue: make(chan key, queueSize),
		retries: map[key]retry{}, members: map[key]*member{}, spaces: map[ID]*space{},
	}
	n.table.init()
	return n
}

// Stats as of now.
func (n *Namespaces) Stats() Stats {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.stats
}

// IsHost tells whether a namespace is the host's own.
func (n *Namespaces) IsHost(id ID) bool {
	return id.Type < Types && id.Inode != 0 && n.options.Host.Set[id.Type] == id.Inode
}

// Of gives the namespaces of a container; false: they are not known.
func (n *Namespaces) Of(ref *protov1.ContainerRef) (Set, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	m := n.member(ref)
	if m == nil {
		return Set{}, false
	}
	return m.set, true
}

func (n *Namespaces) member(ref *protov1.ContainerRef) *member {
	return n.members[key{ref.GetScope(), ref.GetId()}]
}

// Member is a container in a namespace.
type Member struct {
	Scope, ID string
	Name      string
	PID       uint32 // its first process, on the host
	NSPID     uint32 // the same in its own pid namespace
}

// Namespace is one that containers are in.
type Namespace struct {
	ID
	Host       bool     // the host's own
	Containers []Member // by name and id; several: they share it
	UIDs, GIDs Map      // of a user namespace that is not the host's
}

// Get gives a namespace; false: no container is known to be in it.
func (n *Namespaces) Get(id ID) (Namespace, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	s := n.spaces[id]
	if s == nil {
		return Namespace{}, false
	}
	return n.describe(id, s), true
}

// List gives the namespaces of some types, in the order of types and inodes.
func (n *Namespaces) List(types ...Type) []Namespace {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var out []Namespace
	for id, s := range n.spaces {
		if slices.Contains(types, id.Type) {
			out = append(out, n.describe(id, s))
		}
	}
	slices.SortFunc(out, func(a, b Namespace) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Inode, b.Inode))
	})
	return out
}

func (n *Namespaces) describe(id ID, s *space) Namespace {
	out := Namespace{ID: id, Host: n.IsHost(id), UIDs: s.uids, GIDs: s.gids, Containers: make([]Member, 0, len(s.members))}
	for m := range s.members {
		one := Member{Scope: m.key.scope, ID: m.key.id, PID: m.pid}
		if w := m.handle.Workload(); w != nil {
			one.Name = w.Container.GetName()
		}
		if len(m.pids) > 0 {
			one.NSPID = m.pids[len(m.pids)-1]
		}
		out.Containers = append(out.Containers, one)
	}
	slices.SortFunc(out.Containers, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Scope, b.Scope))
	})
	return out
}

// Maps are those of a container's user namespace: how the user ids and the group ids
// inside are mapped to the host's. In the host's own user namespace each is itself.
// false: they are not known.
func (n *Namespaces) Maps(ref *protov1.ContainerRef) (uids, gids Map, ok bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	m := n.member(ref)
	if m == nil {
		return nil, nil, false
	}
	id := ID{User, m.set[User]}
	if n.IsHost(id) {
		itself := Map{{Count: ^uint32(0)}}
		return itself, itself, true
	}
	s := n.spaces[id]
	return s.uids, s.gids, len(s.uids) > 0
}

// link puts a container into its namespaces.
func (n *Namespaces) link(m *member, uids, gids Map) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unlink(m.key)
	n.members[m.key] = m
	n.stats.Containers++
	n.stats.Read++
	for t, inode := range m.set {
		if inode == 0 {
			continue
		}
		id := ID{Type(t), inode}
		s := n.spaces[id]
		if s == nil {
			s = &space{members: map[*member]struct{}{}}
			n.spaces[id] = s
			n.stats.Namespaces[t]++
		}
		s.members[m] = struct{}{}
		if id.Type == User && !n.IsHost(id) {
			n.setMaps(s, uids, gids)
		}
		if id.Type == PID {
			n.settle(id)
		}
	}
}

func (n *Namespaces) setMaps(s *space, uids, gids Map) {
	n.extents -= len(s.uids) + len(s.gids)
	s.uids, s.gids = nil, nil
	if n.extents+len(uids)+len(gids) > mostKept {
		n.stats.Unmapped++
		return
	}
	s.uids, s.gids = uids, gids
	n.extents += len(uids) + len(gids)
}

// unlink takes a container out of its namespaces.
func (n *Namespaces) unlink(k key) {
	m := n.members[k]
	if m == nil {
		return
	}
	delete(n.members, k)
	n.stats.Containers--
	for t, inode := range m.set {
		id := ID{Type(t), inode}
		s := n.spaces[id]
		if s == nil {
			continue
		}
		delete(s.members, m)
		if len(s.members) == 0 {
			n.extents -= len(s.uids) + len(s.gids)
			delete(n.spaces, id)
			n.stats.Namespaces[t]--
		}
		if id.Type == PID {
			n.settle(id)
		}
	}
}

// forget ends what is known of a container, which has no process any more.
func (n *Namespaces) forget(k key) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unlink(k)
}

// settle says for ByPID whose a pid namespace is: that of the one container that is
// known to be in it, and nobody's when there are several or when it is the host's.
func (n *Namespaces) settle(id ID) {
	s := n.spaces[id]
	switch {
	case s == nil:
		if o := n.table.get(uint32(id.Inode)); o != nil {
			o.end(o.seen.Load())
			n.leaving = append(n.leaving, departure{o, uint32(id.Inode), n.options.Now()})
		}
	case len(s.members) == 1 && !n.IsHost(id):
		for m := range s.members {
			o := &owner{handle: m.handle}
			o.seen.Store(m.seen.Load())
			n.table.set(uint32(id.Inode), o)
		}
	default:
		n.table.drop(uint32(id.Inode))
	}
}

// Run looks at containers until ctx is done. It is to be called once.
func (n *Namespaces) Run(ctx context.Context) {
	stop := n.options.Inventory.Observe(inventory.Observer{Workload: n.changed})
	defer stop()
	n.all()
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case k := <-n.queue:
			n.look(k)
		case <-ticks.C:
			n.tick()
		}
	}
}

// changed is the inventory's word, under its lock.
func (n *Namespaces) changed(c *protov1.InventoryChange) {
	var k key
	if d := c.GetContainer(); d != nil {
		k = key{d.GetScope(), d.GetId()}
	} else if r := c.GetRemoved().GetContainer(); r != nil {
		k = key{r.GetScope(), r.GetId()}
	} else {
		return
	}
	select {
	case n.queue <- k:
	default:
		n.behind.Store(true)
	}
}
