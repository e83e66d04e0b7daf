package inventory

import (
	"fmt"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// best is the fact of the greatest confidence: one about the container itself
// wins over one about its pod.
func best(own, pod map[string]*protov1.MeshFact) *protov1.MeshFact {
	var out *protov1.MeshFact
	for _, facts := range []map[string]*protov1.MeshFact{own, pod} {
		for _, f := range facts {
			if out == nil || f.GetConfidence() > out.GetConfidence() {
				out = f
			}
		}
		if out != nil {
			break
		}
	}
	return out
}

// detector is one detector: the facts that it holds, and where its snapshot is.
type detector struct {
	snapshot bool
	told     map[string]struct{} // since reset
	facts    map[string]*protov1.WorkloadRef
}

// Mesh takes the facts of detectors, by name. It is for one goroutine for each
// detector.
type Mesh struct {
	inventory *Inventory
	name      string
	detector  detector
}

// Mesh gives a place for the facts of the detector of that name.
func (i *Inventory) Mesh(name string) *Mesh {
	return &Mesh{inventory: i, name: name, detector: detector{facts: map[string]*protov1.WorkloadRef{}}}
}

// Apply takes a batch of changes, in order. An error wraps ErrProtocol.
func (m *Mesh) Apply(changes []*protov1.MeshChange) error {
	m.inventory.mu.Lock()
	defer m.inventory.mu.Unlock()
	d := &m.detector
	for _, change := range changes {
		switch c := change.GetChange().(type) {
		case *protov1.MeshChange_Reset_:
			d.snapshot, d.told = true, map[string]struct{}{}
		case *protov1.MeshChange_Synced:
			if !d.snapshot {
				return fmt.Errorf("%w: synced without reset", ErrProtocol)
			}
			for ref, w := range d.facts {
				if _, told := d.told[ref]; !told {
					m.set(w, nil)
				}
			}
			d.snapshot, d.told = false, nil
		case *protov1.MeshChange_Fact:
			if d.snapshot {
				d.told[refKey(c.Fact.GetWorkload())] = struct{}{}
			}
			m.set(c.Fact.GetWorkload(), c.Fact)
		case *protov1.MeshChange_Removed:
			delete(d.told, refKey(c.Removed))
			m.set(c.Removed, nil)
		}
	}
	return nil
}

func refKey(w *protov1.WorkloadRef) string {
	if uid := w.GetPodUid(); uid != "" {
		return "pod/" + uid
	}
	return "container/" + w.GetContainer().GetScope() + "/" + w.GetContainer().GetId()
}

// set puts a fact in force, or takes it back. A fact about a workload that is not
// known (any more) is no fault: the detector is behind.
func (m *Mesh) set(w *protov1.WorkloadRef, fact *protov1.MeshFact) {
	i := m.inventory
	if fact == nil {
		delete(m.detector.facts, refKey(w))
	} else {
		m.detector.facts[refKey(w)] = w
	}
	if uid := w.GetPodUid(); uid != "" {
		p := i.pods[uid]
		if p == nil {
			if fact == nil || len(i.pods) >= most {
				return
			}
			p = &pod{facets: map[string]*protov1.Pod{}, mesh: map[string]*protov1.MeshFact{}}
			i.pods[uid] = p
		}
		put(p.mesh, m.name, fact)
		if len(p.facets) == 0 && len(p.mesh) == 0 {
			delete(i.pods, uid)
		}
		for _, c := range i.containers {
			if c.workload.Container.GetPodUid() == uid {
				i.changed(c)
			}
		}
		return
	}
	if c := i.containers[keyOf(w.GetContainer())]; c != nil {
		put(c.mesh, m.name, fact)
		i.changed(c)
	}
}

func put(facts map[string]*protov1.MeshFact, name string, fact *protov1.MeshFact) {
	if fact == nil {
		delete(facts, name)
	} else {
		facts[name] = fact
	}
}
