package inventory

import (
	"context"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// batch is how many changes a watch gives at most at a time.
const batch = 100

// Watch follows the merged inventory for one detector. What changed is kept as a
// set of names, so that it is bounded by the inventory itself and a slow reader
// loses no change: it is told how things stand when it comes to read.
type Watch struct {
	inventory  *Inventory
	ready      chan struct{}
	containers map[key]struct{}
	pods       map[string]struct{}
	services   map[string]struct{}
	started    bool
	synced     bool
}

// Watch begins to follow the inventory. Close it.
func (i *Inventory) Watch() *Watch {
	i.mu.Lock()
	defer i.mu.Unlock()
	w := &Watch{
		inventory: i, ready: make(chan struct{}, 1),
		containers: map[key]struct{}{}, pods: map[string]struct{}{}, services: map[string]struct{}{},
	}
	for k, c := range i.containers {
		if c.removed.IsZero() {
			w.containers[k] = struct{}{}
		}
	}
	for uid := range i.pods {
		w.pods[uid] = struct{}{}
	}
	for uid := range i.services {
		w.services[uid] = struct{}{}
	}
	i.watches[w] = struct{}{}
	w.wake()
	return w
}

// Close ends the watch.
func (w *Watch) Close() {
	w.inventory.mu.Lock()
	defer w.inventory.mu.Unlock()
	delete(w.inventory.watches, w)
}

func (w *Watch) wake() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

func (w *Watch) container(k key)    { w.containers[k] = struct{}{}; w.wake() }
func (w *Watch) pod(uid string)     { w.pods[uid] = struct{}{}; w.wake() }
func (w *Watch) service(uid string) { w.services[uid] = struct{}{}; w.wake() }

// Next waits for changes and gives the next of them: first a reset, everything
// and synced, then what changed. Environments and arguments are left out.
func (w *Watch) Next(ctx context.Context) (*protov1.InventoryChanges, error) {
	for {
		if out := w.take(); len(out.Changes) > 0 {
			return out, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-w.ready:
		}
	}
}

func (w *Watch) take() *protov1.InventoryChanges {
	i := w.inventory
	i.mu.Lock()
	defer i.mu.Unlock()
	out := &protov1.InventoryChanges{}
	if !w.started {
		w.started = true
		out.Changes = append(out.Changes, &protov1.InventoryChange{
			Change: &protov1.InventoryChange_Reset_{Reset_: &protov1.Reset{}},
		})
	}
	room := func() bool { return len(out.Changes) < batch }
	for uid := range w.services {
		if !room() {
			break
		}
		delete(w.services, uid)
		out.Changes = append(out.Changes, i.tellService(uid))
	}
	for uid := range w.pods {
		if !room() {
			break
		}
		delete(w.pods, uid)
		out.Changes = append(out.Changes, i.tellPod(uid))
	}
	for k := range w.containers {
		if !room() {
			break
		}
		delete(w.containers, k)
		out.Changes = append(out.Changes, i.tellContainer(k))
	}
	if len(w.containers)+len(w.pods)+len(w.services) > 0 {
		w.wake()
	} else if !w.synced {
		w.synced = true
		out.Changes = append(out.Changes, &protov1.InventoryChange{
			Change: &protov1.InventoryChange_Synced{Synced: &protov1.Synced{}},
		})
	}
	return out
}

func (i *Inventory) tellContainer(k key) *protov1.InventoryChange {
	c := i.containers[k]
	if c == nil || !c.removed.IsZero() {
		return removal(&protov1.Removed{What: &protov1.Removed_Container{
			Container: &protov1.ContainerRef{Id: k.id, Scope: k.scope},
		}})
	}
	d := c.workload.Container
	if len(d.GetEnv())+len(d.GetArgs())+len(d.GetEntrypoint()) > 0 {
		d = proto.Clone(d).(*protov1.Container)
		d.Env, d.Args, d.Entrypoint = nil, nil, nil
	}
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: d}}
}

func (i *Inventory) tellPod(uid string) *protov1.InventoryChange {
	if p := i.pods[uid]; p != nil {
		if d := p.merged(); d != nil {
			return &protov1.InventoryChange{Change: &protov1.InventoryChange_Pod{Pod: d}}
		}
	}
	return removal(&protov1.Removed{What: &protov1.Removed_PodUid{PodUid: uid}})
}

func (i *Inventory) tellService(uid string) *protov1.InventoryChange {
	if s := i.services[uid]; s != nil {
		for _, d := range s.facets {
			return &protov1.InventoryChange{Change: &protov1.InventoryChange_Service{Service: d}}
		}
	}
	return removal(&protov1.Removed{What: &protov1.Removed_ServiceUid{ServiceUid: uid}})
}

func removal(r *protov1.Removed) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Removed{Removed: r}}
}

// mostFacts is how many facts wait for a reader of a CgroupWatch.
const mostFacts = 4096

// CgroupWatch follows the kernel's cgroups for one discoverer. A reader that is
// too slow loses facts, is told how many, and gets the list anew.
type CgroupWatch struct {
	inventory *Inventory
	ready     chan struct{}
	queue     []*protov1.HostFact
	missed    uint64
	list      bool // to be told from the start
}

// WatchCgroups begins to follow the cgroups. Close it.
func (i *Inventory) WatchCgroups() *CgroupWatch {
	i.mu.Lock()
	defer i.mu.Unlock()
	w := &CgroupWatch{inventory: i, ready: make(chan struct{}, 1), list: true}
	i.facts[w] = struct{}{}
	w.wake()
	return w
}

// Close ends the watch.
func (w *CgroupWatch) Close() {
	w.inventory.mu.Lock()
	defer w.inventory.mu.Unlock()
	delete(w.inventory.facts, w)
}

func (w *CgroupWatch) wake() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

func (w *CgroupWatch) created(g *Cgroup) { w.add(g, protov1.CgroupFact_CHANGE_CREATED) }
func (w *CgroupWatch) removed(g *Cgroup) { w.add(g, protov1.CgroupFact_CHANGE_REMOVED) }

func (w *CgroupWatch) add(g *Cgroup, change protov1.CgroupFact_Change) {
	if w.list {
		return // the list will hold it
	}
	if len(w.queue) >= mostFacts {
		w.missed += uint64(len(w.queue)) + 1
		w.queue, w.list = nil, true
		return
	}
	w.queue = append(w.queue, w.fact(g, change))
	w.wake()
}

func (w *CgroupWatch) fact(g *Cgroup, change protov1.CgroupFact_Change) *protov1.HostFact {
	f := &protov1.CgroupFact{Change: change, Id: g.ID, Path: g.Path}
	if change != protov1.CgroupFact_CHANGE_PRESENT {
		f.TimeUnixNano = w.inventory.options.Now().UnixNano()
	}
	return &protov1.HostFact{Fact: &protov1.HostFact_Cgroup{Cgroup: f}}
}

// Next waits for facts and gives the next of them.
func (w *CgroupWatch) Next(ctx context.Context) (*protov1.HostFacts, error) {
	for {
		if out := w.take(); len(out.Facts) > 0 {
			return out, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-w.ready:
		}
	}
}

func (w *CgroupWatch) take() *protov1.HostFacts {
	i := w.inventory
	i.mu.Lock()
	defer i.mu.Unlock()
	if w.list {
		w.list = false
		w.queue = append(w.queue[:0:0], &protov1.HostFact{Fact: &protov1.HostFact_Reset_{Reset_: &protov1.Reset{}}})
		for _, g := range i.byPath {
			w.queue = append(w.queue, w.fact(g, protov1.CgroupFact_CHANGE_PRESENT))
		}
		w.queue = append(w.queue, &protov1.HostFact{Fact: &protov1.HostFact_Synced{Synced: &protov1.Synced{}}})
	}
	n := min(len(w.queue), batch)
	out := &protov1.HostFacts{Facts: w.queue[:n:n], Missed: w.missed}
	w.queue = w.queue[n:]
	if len(w.queue) > 0 {
		w.wake()
	}
	return out
}
