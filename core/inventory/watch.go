package inventory

import (
	"time"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Observer is told what changes, in order, after it has become visible to
// Workloads and Cgroups. It is called under the inventory's lock: it must not
// block and must not call the inventory. The messages must not be changed.
type Observer struct {
	Workload func(*protov1.InventoryChange) // nil: not wanted
	// Cgroup is told of cgroups that come and go; nil: not wanted. Nobody waits for what
	// is said of one that is not awaited: whose it is was known as it came.
	Cgroup func(f *protov1.HostFact, awaited bool)
}

// Observe adds an observer and returns how to take it away again.
func (i *Inventory) Observe(o Observer) (stop func()) {
	i.lock()
	defer i.mu.Unlock()
	i.observers[&o] = struct{}{}
	return func() {
		i.lock()
		defer i.mu.Unlock()
		delete(i.observers, &o)
	}
}

func (i *Inventory) tell(change *protov1.InventoryChange) {
	for o := range i.observers {
		if o.Workload != nil {
			o.Workload(change)
		}
	}
}

func (i *Inventory) tellCgroup(g *Cgroup, change protov1.CgroupFact_Change, at time.Time) {
	for o := range i.observers {
		if o.Cgroup != nil {
			o.Cgroup(fact(g, change, at), g.awaited)
		}
	}
}

// Workloads describes every container, pod and service that there is now, as all
// sources have described it together. Environments and arguments are left out.
// What changes meanwhile may be in the list or not: observers are told of it.
func (i *Inventory) Workloads() []*protov1.InventoryChange {
	i.lock()
	defer i.mu.Unlock()
	out := make([]*protov1.InventoryChange, 0, len(i.services)+len(i.pods)+len(i.containers))
	for uid := range i.services {
		out = append(out, i.serviceChange(uid))
		i.pause()
	}
	for uid, p := range i.pods {
		if len(p.facets) > 0 {
			out = append(out, i.podChange(uid))
		}
		i.pause()
	}
	for k, c := range i.containers {
		if c.removed.IsZero() {
			out = append(out, i.containerChange(k))
		}
		i.pause()
	}
	return out
}

// Cgroups lists every cgroup of the default hierarchy that there is now. What
// changes meanwhile may be in the list or not: observers are told of it.
func (i *Inventory) Cgroups() []*protov1.HostFact {
	i.lock()
	defer i.mu.Unlock()
	i.finish()
	out := make([]*protov1.HostFact, 0, i.stats.Cgroups)
	i.cgroups.each(func(g *Cgroup) {
		if g.node != nil && g.removed.IsZero() {
			out = append(out, fact(g, protov1.CgroupFact_CHANGE_PRESENT, time.Time{}))
		}
		i.pause()
	})
	return out
}

func fact(g *Cgroup, change protov1.CgroupFact_Change, at time.Time) *protov1.HostFact {
	f := &protov1.CgroupFact{Change: change, Id: g.ID, Path: g.Path}
	if !at.IsZero() {
		f.TimeUnixNano = at.UnixNano()
	}
	return &protov1.HostFact{Fact: &protov1.HostFact_Cgroup{Cgroup: f}}
}

func (i *Inventory) containerChange(k key) *protov1.InventoryChange {
	c := i.containers[k]
	if c == nil || !c.removed.IsZero() {
		return removal(&protov1.Removed{What: &protov1.Removed_Container{
			Container: &protov1.ContainerRef{Id: k.id, Scope: k.scope},
		}})
	}
	d := c.workload.Load().Container
	if len(d.GetEnv())+len(d.GetArgs())+len(d.GetEntrypoint()) > 0 {
		d = proto.Clone(d).(*protov1.Container)
		d.Env, d.Args, d.Entrypoint = nil, nil, nil
	}
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: d}}
}

func (i *Inventory) podChange(uid string) *protov1.InventoryChange {
	if p := i.pods[uid]; p != nil {
		if d := p.merged; d != nil {
			return &protov1.InventoryChange{Change: &protov1.InventoryChange_Pod{Pod: d}}
		}
	}
	return removal(&protov1.Removed{What: &protov1.Removed_PodUid{PodUid: uid}})
}

func (i *Inventory) serviceChange(uid string) *protov1.InventoryChange {
	if s := i.services[uid]; s != nil {
		return &protov1.InventoryChange{Change: &protov1.InventoryChange_Service{Service: top(s.facets)}}
	}
	return removal(&protov1.Removed{What: &protov1.Removed_ServiceUid{ServiceUid: uid}})
}

func removal(r *protov1.Removed) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Removed{Removed: r}}
}
