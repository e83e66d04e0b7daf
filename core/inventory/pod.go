package inventory

import (
	"cmp"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// pod is a pod as its sources describe it.
type pod struct {
	facets map[string]told[*protov1.Pod] // by source
	mesh   map[string]meshFact           // by detector
	merged *protov1.Pod                  // what the facets come to; nil: there is none
}

// merge puts the facets of a pod together: for each field that of the source that
// knows it best and told it. That is the orchestrator, whose the pod is; a runtime
// tells of it sooner, and of less.
func (p *pod) merge() {
	p.merged = nil
	from := slices.SortedFunc(maps.Keys(p.facets), func(a, b string) int {
		orchestrator := func(s string) int {
			if s == "kubernetes" {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(orchestrator(a), orchestrator(b)), compareSources(a, b))
	})
	for n, source := range from {
		switch told := p.facets[source].what; n {
		case 0:
			p.merged = told
		case 1:
			p.merged = proto.CloneOf(p.merged)
			fallthrough
		default:
			out := p.merged.ProtoReflect()
			proto.CloneOf(told).ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
				if !out.Has(f) {
					out.Set(f, v)
				}
				return true
			})
		}
	}
}

// pod gives a pod, and makes it where there is room.
func (i *Inventory) pod(uid string) *pod {
	p := i.pods[uid]
	if p == nil {
		if len(i.pods) >= most {
			i.stats.Refused++
			return nil
		}
		p = &pod{facets: map[string]told[*protov1.Pod]{}, mesh: map[string]meshFact{}}
		i.pods[uid] = p
	}
	return p
}

func (i *Inventory) describePod(source string, generation uint64, d *protov1.Pod) {
	if d.GetUid() == "" {
		return
	}
	if p := i.pod(d.GetUid()); p != nil {
		if len(p.facets) == 0 {
			i.stats.Pods++
		}
		p.facets[source] = told[*protov1.Pod]{d, generation}
		p.merge()
		i.podChanged(d.GetUid())
		i.tell(i.podChange(d.GetUid()))
	}
}

func (i *Inventory) forgetPod(source, uid string) {
	p := i.pods[uid]
	if p == nil {
		return
	}
	if _, ok := p.facets[source]; !ok {
		return
	}
	delete(p.facets, source)
	if len(p.facets) == 0 {
		i.stats.Pods--
	}
	p.merge()
	i.prunePod(uid)
	i.podChanged(uid)
	i.tell(i.podChange(uid))
}

// prunePod ends the memory of a pod that nobody describes, unless mesh facts wait
// there for its containers.
func (i *Inventory) prunePod(uid string) {
	p := i.pods[uid]
	if p != nil && len(p.facets) == 0 && (len(p.mesh) == 0 || len(i.byPod[uid]) == 0) {
		delete(i.pods, uid)
	}
}

// CgroupsOfPod are the ids of the control groups of a pod's containers, those that are
// described now.
func (i *Inventory) CgroupsOfPod(uid string) []uint64 {
	i.lock()
	defer i.mu.Unlock()
	i.finish()
	var ids []uint64
	for c := range i.byPod[uid] {
		if c.removed.IsZero() {
			ids = append(ids, c.view().CgroupIDs...)
		}
	}
	return ids
}

// podChanged has the workloads of a pod's containers made anew.
func (i *Inventory) podChanged(uid string) {
	for c := range i.byPod[uid] {
		i.later(c)
	}
}
