package sdktest

import (
	"context"

	"google.golang.org/grpc"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/contract"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Mesh is the stream of a detector. Its methods may be called from several
// goroutines, Tell from one at a time.
type Mesh struct {
	*stream
	send  grpc.BidiStreamingClient[protov1.InventoryChanges, protov1.MeshChanges]
	judge contract.Mesh
	facts Facts
}

// Facts are what a detector told, by the rules of the contract.
type Facts struct {
	Containers map[string]*protov1.MeshFact // by the container's id
	Pods       map[string]*protov1.MeshFact // by the pod's uid
	Snapshots  int                          // told whole

	told map[*protov1.MeshFact]bool // since the reset of an open snapshot; nil: none is
}

// Mesh opens the stream of a detector. While an earlier one still ends, it waits.
func (p *Plugin) Mesh() *Mesh {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	st, err := protov1.NewDetectorClient(p.conn).Detect(ctx)
	if err != nil {
		cancel()
		p.t.Fatalf("open the stream: %v", err)
	}
	m := &Mesh{stream: &stream{t: p.t, cancel: cancel}, send: st,
		facts: Facts{Containers: map[string]*protov1.MeshFact{}, Pods: map[string]*protov1.MeshFact{}}}
	m.receive(func() error {
		b, err := st.Recv()
		if err != nil {
			return err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		p.broken(m.judge.Batch(b))
		m.facts.apply(b)
		return nil
	})
	return m
}

// Tell sends one batch of changes of the inventory.
func (m *Mesh) Tell(changes ...*protov1.InventoryChange) {
	m.t.Helper()
	b := &protov1.InventoryChanges{Changes: changes}
	m.mu.Lock()
	m.judge.Told(b)
	m.mu.Unlock()
	if err := m.send.Send(b); err != nil {
		m.t.Fatalf("tell the detector of workloads: %v", err)
	}
}

// TellAll sends a whole list of workloads: a reset, what is described, synced.
func (m *Mesh) TellAll(described ...*protov1.InventoryChange) {
	m.t.Helper()
	all := append([]*protov1.InventoryChange{Reset()}, described...)
	m.Tell(append(all, Synced())...)
}

// Await waits until the facts fulfil ok, and fails the test when they never do. what
// ends the sentence "there was never ...". ok must not keep the facts.
func (m *Mesh) Await(what string, ok func(f *Facts) bool) {
	m.t.Helper()
	m.await(what, func() bool { return ok(&m.facts) })
}

// AwaitSynced waits for the first whole snapshot of facts of this stream.
func (m *Mesh) AwaitSynced() {
	m.t.Helper()
	m.Await("a snapshot (a reset, what facts there are, synced)", func(f *Facts) bool { return f.Snapshots > 0 })
}

func (f *Facts) apply(b *protov1.MeshChanges) {
	for _, c := range b.GetChanges() {
		switch c := c.GetChange().(type) {
		case *protov1.MeshChange_Reset_:
			f.told = map[*protov1.MeshFact]bool{}
		case *protov1.MeshChange_Synced:
			if f.told == nil {
				continue
			}
			for _, all := range []map[string]*protov1.MeshFact{f.Containers, f.Pods} {
				for k, fact := range all {
					if !f.told[fact] {
						delete(all, k)
					}
				}
			}
			f.told = nil
			f.Snapshots++
		case *protov1.MeshChange_Fact:
			if uid := c.Fact.GetWorkload().GetPodUid(); uid != "" {
				f.Pods[uid] = c.Fact
			} else {
				f.Containers[c.Fact.GetWorkload().GetContainer().GetId()] = c.Fact
			}
			if f.told != nil {
				f.told[c.Fact] = true
			}
		case *protov1.MeshChange_Removed:
			delete(f.Pods, c.Removed.GetPodUid())
			delete(f.Containers, c.Removed.GetContainer().GetId())
		}
	}
}

// Reset begins a list of workloads.
func Reset(kinds ...protov1.WorkloadKind) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Reset_{Reset_: &protov1.Reset{Kinds: kinds}}}
}

// Synced ends a list of workloads.
func Synced(kinds ...protov1.WorkloadKind) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Synced{Synced: &protov1.Synced{Kinds: kinds}}}
}

// Container describes a container.
func Container(c *protov1.Container) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: c}}
}

// Pod describes a pod.
func Pod(p *protov1.Pod) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Pod{Pod: p}}
}

// RemoveContainer says that a container is gone.
func RemoveContainer(id string) *protov1.InventoryChange {
	return removed(&protov1.Removed{What: &protov1.Removed_Container{Container: &protov1.ContainerRef{Id: id}}})
}

// RemovePod says that a pod is gone.
func RemovePod(uid string) *protov1.InventoryChange {
	return removed(&protov1.Removed{What: &protov1.Removed_PodUid{PodUid: uid}})
}

func removed(r *protov1.Removed) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Removed{Removed: r}}
}
