package inventory

import (
	"fmt"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// meshFact is what one detector says of a workload.
type meshFact struct {
	*protov1.MeshFact
	generation uint64 // of the detector's snapshot
}

// best is the fact of the greatest confidence: one about the container itself
// wins over one about its pod.
func best(own, pod map[string]meshFact) *protov1.MeshFact {
	var out *protov1.MeshFact
	by := ""
	for _, facts := range []map[string]meshFact{own, pod} {
		for name, f := range facts {
			if out == nil || f.GetConfidence() > out.GetConfidence() ||
				f.GetConfidence() == out.GetConfidence() && name < by {
				out, by = f.MeshFact, name
			}
		}
		if out != nil {
			break
		}
	}
	return out
}

// Mesh takes the facts of one detector. It keeps none itself: they are with the
// workloads that they are about, and so there are no more of them. It is for one
// goroutine.
type Mesh struct {
	inventory  *Inventory
	name       string
	snapshot   bool   // between reset and synced
	generation uint64 // of the last reset
}

// Mesh gives a place for the facts of the detector of that name.
func (i *Inventory) Mesh(name string) *Mesh { return &Mesh{inventory: i, name: name} }

// Apply takes a batch of changes, in order. Other work goes on between two of
// them; when it returns, Lookup shows them all. A fact about a workload that is
// not known (any more) is no fault, since the detector is behind: it is counted
// and left out. An error wraps ErrProtocol.
func (m *Mesh) Apply(changes []*protov1.MeshChange) error {
	i := m.inventory
	i.lock()
	defer i.mu.Unlock()
	defer i.finish()
	for _, change := range changes {
		switch c := change.GetChange().(type) {
		case *protov1.MeshChange_Reset_:
			m.snapshot = true
			m.generation++
		case *protov1.MeshChange_Synced:
			if !m.snapshot {
				return fmt.Errorf("%w: synced without reset", ErrProtocol)
			}
			m.snapshot = false
			m.forgetOlder()
		case *protov1.MeshChange_Fact:
			m.set(c.Fact)
		case *protov1.MeshChange_Removed:
			m.forget(c.Removed)
		}
		i.pause()
	}
	return nil
}

// Forget takes back all facts. The detector tells no more.
func (m *Mesh) Forget() {
	i := m.inventory
	i.lock()
	defer i.mu.Unlock()
	defer i.finish()
	m.snapshot = false
	m.generation++
	m.forgetOlder()
}

// set puts a fact in force.
func (m *Mesh) set(fact *protov1.MeshFact) {
	i := m.inventory
	f := meshFact{fact, m.generation}
	if uid := fact.GetWorkload().GetPodUid(); uid != "" {
		if i.pods[uid] == nil && len(i.byPod[uid]) == 0 {
			i.stats.Unplaced++
			return
		}
		if p := i.pod(uid); p != nil {
			p.mesh[m.name] = f
			i.podChanged(uid)
		}
		return
	}
	c := i.container(keyOf(fact.GetWorkload().GetContainer()))
	if c == nil {
		i.stats.Unplaced++
		return
	}
	c.mesh[m.name] = f
	i.later(c)
}

// forget takes a fact back.
func (m *Mesh) forget(w *protov1.WorkloadRef) {
	i := m.inventory
	if uid := w.GetPodUid(); uid != "" {
		m.forgetPod(uid)
	} else if c := i.container(keyOf(w.GetContainer())); c != nil {
		delete(c.mesh, m.name)
		i.later(c)
	}
}

func (m *Mesh) forgetPod(uid string) {
	i := m.inventory
	if p := i.pods[uid]; p != nil {
		delete(p.mesh, m.name)
		i.prunePod(uid)
		i.podChanged(uid)
	}
}

// forgetOlder takes back what was told before the last reset.
func (m *Mesh) forgetOlder() {
	i := m.inventory
	for uid, p := range i.pods {
		if f, ok := p.mesh[m.name]; ok && f.generation != m.generation {
			m.forgetPod(uid)
		}
		i.pause()
	}
	for _, c := range i.containers {
		if f, ok := c.mesh[m.name]; ok && f.generation != m.generation {
			delete(c.mesh, m.name)
			i.later(c)
		}
		i.pause()
	}
}
