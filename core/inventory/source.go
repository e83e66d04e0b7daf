package inventory

import (
	"errors"
	"fmt"
	"slices"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// ErrProtocol says that a plugin broke the rules of its stream.
var ErrProtocol = errors.New("the plugin broke the protocol")

// pod is a pod as its sources describe it.
type pod struct {
	facets map[string]*protov1.Pod
	mesh   map[string]*protov1.MeshFact // by detector
}

// merged is the description by the source of the highest rank.
func (p *pod) merged() *protov1.Pod {
	var out *protov1.Pod
	at := 0
	for s, f := range p.facets {
		if out == nil || rank(s) < at {
			out, at = f, rank(s)
		}
	}
	return out
}

type service struct {
	facets map[string]*protov1.Service
}

// source is one discoverer: where its snapshot stands.
type source struct {
	away       bool
	snapshot   bool                   // between reset and synced
	kinds      []protov1.WorkloadKind // of the snapshot; nil: all
	containers map[key]struct{}       // told since reset
	pods       map[string]struct{}
	services   map[string]struct{}
}

func (i *Inventory) source(name string) *source {
	s := i.sources[name]
	if s == nil {
		s = &source{}
		i.sources[name] = s
	}
	return s
}

// Apply takes a batch of changes from a discoverer, in order. An error wraps
// ErrProtocol; what came before the fault has been applied.
func (i *Inventory) Apply(name string, changes []*protov1.InventoryChange) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.sweep()
	s := i.source(name)
	for _, c := range changes {
		if err := i.apply(name, s, c); err != nil {
			return err
		}
	}
	return nil
}

func (i *Inventory) apply(name string, s *source, change *protov1.InventoryChange) error {
	switch c := change.GetChange().(type) {
	case *protov1.InventoryChange_Reset_:
		s.snapshot = true
		s.kinds = c.Reset_.GetKinds()
		s.containers, s.pods, s.services = map[key]struct{}{}, map[string]struct{}{}, map[string]struct{}{}
	case *protov1.InventoryChange_Synced:
		if !s.snapshot {
			return fmt.Errorf("%w: synced without reset", ErrProtocol)
		}
		i.synced(name, s)
	case *protov1.InventoryChange_Container:
		if s.snapshot {
			s.containers[key{c.Container.GetScope(), c.Container.GetId()}] = struct{}{}
		}
		i.describe(name, c.Container)
	case *protov1.InventoryChange_Pod:
		if s.snapshot {
			s.pods[c.Pod.GetUid()] = struct{}{}
		}
		i.describePod(name, c.Pod)
	case *protov1.InventoryChange_Service:
		if s.snapshot {
			s.services[c.Service.GetUid()] = struct{}{}
		}
		i.describeService(name, c.Service)
	case *protov1.InventoryChange_Removed:
		i.remove(name, s, c.Removed)
	}
	// Lifecycle and subscriptions are not the inventory's.
	return nil
}

func (i *Inventory) remove(name string, s *source, r *protov1.Removed) {
	switch w := r.GetWhat().(type) {
	case *protov1.Removed_Container:
		delete(s.containers, keyOf(w.Container))
		i.forget(name, keyOf(w.Container))
	case *protov1.Removed_PodUid:
		delete(s.pods, w.PodUid)
		i.forgetPod(name, w.PodUid)
	case *protov1.Removed_ServiceUid:
		delete(s.services, w.ServiceUid)
		i.forgetService(name, w.ServiceUid)
	}
}

// synced forgets what the snapshot did not tell.
func (i *Inventory) synced(name string, s *source) {
	of := func(k protov1.WorkloadKind) bool { return len(s.kinds) == 0 || slices.Contains(s.kinds, k) }
	if of(protov1.WorkloadKind_WORKLOAD_KIND_CONTAINER) {
		for k, c := range i.containers {
			if _, told := s.containers[k]; !told && c.facets[name] != nil {
				i.forget(name, k)
			}
		}
	}
	if of(protov1.WorkloadKind_WORKLOAD_KIND_POD) {
		for uid := range i.pods {
			if _, told := s.pods[uid]; !told {
				i.forgetPod(name, uid)
			}
		}
	}
	if of(protov1.WorkloadKind_WORKLOAD_KIND_SERVICE) {
		for uid := range i.services {
			if _, told := s.services[uid]; !told {
				i.forgetService(name, uid)
			}
		}
	}
	s.snapshot = false
	s.containers, s.pods, s.services = nil, nil, nil
	i.setAway(name, s, false)
}

// Away marks a discoverer's descriptions as stale: it crashed or lost its
// runtime. They stay until it is back and tells otherwise.
func (i *Inventory) Away(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.source(name)
	s.snapshot = false
	i.setAway(name, s, true)
}

func (i *Inventory) setAway(name string, s *source, away bool) {
	if s.away == away {
		return
	}
	s.away = away
	for _, c := range i.containers {
		if c.facets[name] != nil {
			i.changed(c)
		}
	}
}

func (i *Inventory) describePod(source string, d *protov1.Pod) {
	if d.GetUid() == "" {
		return
	}
	p := i.pods[d.GetUid()]
	if p == nil {
		if len(i.pods) >= most {
			i.stats.Refused++
			return
		}
		p = &pod{facets: map[string]*protov1.Pod{}, mesh: map[string]*protov1.MeshFact{}}
		i.pods[d.GetUid()] = p
	}
	p.facets[source] = d
	i.podChanged(d.GetUid())
}

func (i *Inventory) forgetPod(source, uid string) {
	p := i.pods[uid]
	if p == nil || p.facets[source] == nil {
		return
	}
	delete(p.facets, source)
	if len(p.facets) == 0 && len(p.mesh) == 0 {
		delete(i.pods, uid)
	}
	i.podChanged(uid)
}

func (i *Inventory) podChanged(uid string) {
	for _, c := range i.containers {
		if c.workload.Container.GetPodUid() == uid {
			i.changed(c)
		}
	}
	i.tell(i.podChange(uid))
}

func (i *Inventory) describeService(source string, d *protov1.Service) {
	if d.GetUid() == "" {
		return
	}
	s := i.services[d.GetUid()]
	if s == nil {
		if len(i.services) >= most {
			i.stats.Refused++
			return
		}
		s = &service{facets: map[string]*protov1.Service{}}
		i.services[d.GetUid()] = s
	}
	s.facets[source] = d
	i.tell(i.serviceChange(d.GetUid()))
}

func (i *Inventory) forgetService(source, uid string) {
	s := i.services[uid]
	if s == nil || s.facets[source] == nil {
		return
	}
	delete(s.facets, source)
	if len(s.facets) == 0 {
		delete(i.services, uid)
	}
	i.tell(i.serviceChange(uid))
}
