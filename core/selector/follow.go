package selector

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Inventory says which control groups there are, and whose; *inventory.Inventory does.
type Inventory interface {
	Cgroups() []*protov1.HostFact
	Lookup(id uint64) *inventory.Cgroup
	Get(*protov1.ContainerRef) (inventory.View, bool)
	CgroupsOfPod(uid string) []uint64
	Observe(inventory.Observer) (stop func())
}

// Looker looks again at control groups, and gives them what they are due. Its methods are
// called one at a time.
type Looker interface {
	// Look looks at some of them, which may be gone.
	Look(ids []uint64)
	// LookAtAll looks at every one that there is or that had something.
	LookAtAll()
}

// Follower follows the control groups. Its methods may be called from several goroutines.
type Follower struct {
	inventory Inventory
	changes   chan change
	wake      chan struct{}
	missed    atomic.Bool // changes: look at all
	wanted    atomic.Bool // changes are heard

	mu   sync.Mutex
	gone map[uint64]bool // removed ones, which the inventory may still know
	most int             // of those, before it is looked which it has forgotten
}

// change of what the inventory knows: one of the three.
type change struct {
	cgroup    uint64
	removed   bool // the cgroup
	container *protov1.ContainerRef
	pod       string // its uid
}

// queueSize is how many changes may wait; when more do, all is looked at.
const queueSize = 1024

// Follow makes a follower. Run has it follow.
func Follow(i Inventory) *Follower {
	return &Follower{
		inventory: i, changes: make(chan change, queueSize), wake: make(chan struct{}, 1),
		gone: map[uint64]bool{}, most: queueSize,
	}
}

// Want says whether changes are of any use. While they are not, nobody is woken for them,
// and whoever wants them again looks at all.
func (f *Follower) Want(wanted bool) { f.wanted.Store(wanted) }

// Lookup gives what the inventory knows of a control group; nil when there is none, or no
// more.
func (f *Follower) Lookup(id uint64) *inventory.Cgroup {
	f.mu.Lock()
	gone := f.gone[id]
	f.mu.Unlock()
	if gone {
		return nil
	}
	return f.inventory.Lookup(id)
}

// All are the ids of the control groups that there are.
func (f *Follower) All() []uint64 {
	facts := f.inventory.Cgroups()
	ids := make([]uint64, 0, len(facts))
	for _, fact := range facts {
		if id := fact.GetCgroup().GetId(); id != 0 && f.Lookup(id) != nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// Run has a looker look at what changes, where that is wanted, and at all once in an hour,
// until ctx is done.
func (f *Follower) Run(ctx context.Context, l Looker) {
	stop := f.inventory.Observe(inventory.Observer{Workload: f.hearWorkload, Cgroup: f.hearCgroup})
	defer stop()
	hour := time.NewTicker(time.Hour)
	defer hour.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
			if f.missed.Swap(false) {
				f.lookAtAll(l)
			}
		case <-hour.C:
			f.lookAtAll(l)
		case c := <-f.changes:
			f.look(l, c)
		}
	}
}

// hearWorkload and hearCgroup are called under the inventory's lock.
func (f *Follower) hearWorkload(c *protov1.InventoryChange) {
	if d := c.GetContainer(); d != nil {
		f.queue(change{container: &protov1.ContainerRef{Id: d.GetId(), Scope: d.GetScope()}})
	}
	if uid := cmp.Or(c.GetPod().GetUid(), c.GetRemoved().GetPodUid()); uid != "" {
		f.queue(change{pod: uid})
	}
}

func (f *Follower) hearCgroup(fact *protov1.HostFact, _ bool) {
	g := fact.GetCgroup()
	f.queue(change{cgroup: g.GetId(), removed: g.GetChange() == protov1.CgroupFact_CHANGE_REMOVED})
}

func (f *Follower) queue(c change) {
	if !f.wanted.Load() {
		return
	}
	select {
	case f.changes <- c:
	default:
		f.missed.Store(true)
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

func (f *Follower) lookAtAll(l Looker) {
	f.sweep()
	l.LookAtAll()
}

// look has what a change is about looked at.
func (f *Follower) look(l Looker, c change) {
	if c.removed {
		f.bury(c.cgroup)
	}
	ids := []uint64{c.cgroup}
	if c.pod != "" {
		ids = f.inventory.CgroupsOfPod(c.pod)
	}
	if c.container != nil {
		v, ok := f.inventory.Get(c.container)
		if !ok {
			return
		}
		ids = v.CgroupIDs
	}
	l.Look(ids)
}

// bury remembers that a control group is gone: a change of its container may yet come, and
// would give it something again.
func (f *Follower) bury(id uint64) {
	f.mu.Lock()
	f.gone[id] = true
	full := len(f.gone) > f.most
	f.mu.Unlock()
	if full {
		f.sweep()
	}
}

// sweep forgets control groups that the inventory has forgotten.
func (f *Follower) sweep() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.gone {
		if f.inventory.Lookup(id) == nil {
			delete(f.gone, id)
		}
	}
	f.most = 2*len(f.gone) + queueSize
}

// Given is what control groups were given, a number each; one that is not there has 0.
type Given map[uint64]uint32

// Give has a control group told its number, unless it has it already. One that is gone
// needs none.
func (g Given) Give(id uint64, number uint32, tell func(id uint64, number uint32) error) error {
	if number == g[id] {
		return nil
	}
	if err := tell(id, number); err != nil && !errors.Is(err, kernel.ErrNoCgroup) {
		return err
	}
	if g[id] = number; number == 0 {
		delete(g, id)
	}
	return nil
}

// Replace gives all that next says, and 0 to all others that have a number.
func (g Given) Replace(next Given, give func(id uint64, number uint32)) {
	for id := range g {
		if _, still := next[id]; !still {
			give(id, 0)
		}
	}
	for id, number := range next {
		give(id, number)
	}
}
