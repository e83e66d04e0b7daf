package main

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/mesh"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// maxBatch is how many changes one message holds at most.
const maxBatch = 500

// genericDetector tells the facts of the rules.
type genericDetector struct{ config Config }

// Detect follows the inventory until ctx is done or the stream ends.
func (d genericDetector) Detect(ctx context.Context, workloads <-chan *protov1.InventoryChanges, facts mesh.Facts) error {
	f := newFollower(d.config, facts)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case batch, ok := <-workloads:
			if !ok {
				return ctx.Err()
			}
			if err := f.follow(batch); err != nil {
				return err
			}
		}
	}
}

// follower keeps the inventory and what was said about it, and tells the
// difference after each batch. Facts go out as soon as they are known; that
// nothing is missing, when the inventory's own list is whole.
type follower struct {
	inventory *inventory
	facts     mesh.Facts

	said    map[string]map[subject]*protov1.MeshFact // by group
	touched map[string]struct{}                      // groups to look at after the batch
	listing map[protov1.WorkloadKind]bool            // between reset and synced
	synced  bool                                     // said once
	out     []*protov1.MeshChange
}

func newFollower(c Config, facts mesh.Facts) *follower {
	return &follower{inventory: newInventory(c), facts: facts, said: map[string]map[subject]*protov1.MeshFact{},
		touched: map[string]struct{}{}, listing: map[protov1.WorkloadKind]bool{},
		out: []*protov1.MeshChange{{Change: &protov1.MeshChange_Reset_{Reset_: &protov1.Reset{}}}}}
}

func (f *follower) follow(batch *protov1.InventoryChanges) error {
	listed := false
	for _, change := range batch.GetChanges() {
		switch c := change.GetChange().(type) {
		case *protov1.InventoryChange_Reset_:
			f.reset(c.Reset_.GetKinds())
		case *protov1.InventoryChange_Container:
			f.touch(f.inventory.put(c.Container))
		case *protov1.InventoryChange_Pod:
			f.touch(f.inventory.putPod(c.Pod))
		case *protov1.InventoryChange_Removed:
			f.remove(c.Removed)
		case *protov1.InventoryChange_Synced:
			f.endList(c.Synced.GetKinds())
			listed = true
		}
	}
	f.compare()
	if listed && !f.synced && len(f.listing) == 0 {
		f.synced = true
		f.out = append(f.out, &protov1.MeshChange{Change: &protov1.MeshChange_Synced{Synced: &protov1.Synced{}}})
	}
	return f.send()
}

func (f *follower) touch(groups []string) {
	for _, g := range groups {
		f.touched[g] = struct{}{}
	}
}

func (f *follower) remove(r *protov1.Removed) {
	switch what := r.GetWhat().(type) {
	case *protov1.Removed_Container:
		f.touch(f.inventory.leave(refOf(what.Container)))
	case *protov1.Removed_PodUid:
		f.touch(f.inventory.removePod(what.PodUid))
	}
}

// kindsOf a reset or synced; none stands for all.
func kindsOf(kinds []protov1.WorkloadKind) []protov1.WorkloadKind {
	if len(kinds) == 0 {
		return []protov1.WorkloadKind{protov1.WorkloadKind_WORKLOAD_KIND_CONTAINER, protov1.WorkloadKind_WORKLOAD_KIND_POD}
	}
	return kinds
}

func (f *follower) reset(kinds []protov1.WorkloadKind) {
	for _, k := range kindsOf(kinds) {
		switch k {
		case protov1.WorkloadKind_WORKLOAD_KIND_CONTAINER:
			for _, m := range f.inventory.containers {
				m.told = false
			}
		case protov1.WorkloadKind_WORKLOAD_KIND_POD:
			for _, p := range f.inventory.pods {
				p.told = false
			}
		default:
			continue
		}
		f.listing[k] = true
	}
}

// endList forgets what the list did not tell.
func (f *follower) endList(kinds []protov1.WorkloadKind) {
	for _, k := range kindsOf(kinds) {
		if !f.listing[k] {
			continue
		}
		delete(f.listing, k)
		switch k {
		case protov1.WorkloadKind_WORKLOAD_KIND_CONTAINER:
			for r, m := range f.inventory.containers {
				if !m.told {
					f.touch(f.inventory.leave(r))
				}
			}
		case protov1.WorkloadKind_WORKLOAD_KIND_POD:
			for uid, p := range f.inventory.pods {
				if !p.told {
					f.touch(f.inventory.removePod(uid))
				}
			}
		}
	}
}

// compare looks at the touched groups together, since a container may have
// moved from one to another.
func (f *follower) compare() {
	before, now := map[subject]*protov1.MeshFact{}, map[subject]*protov1.MeshFact{}
	for g := range f.touched {
		maps.Copy(before, f.said[g])
		facts := f.inventory.facts(g)
		maps.Copy(now, facts)
		if len(facts) == 0 {
			delete(f.said, g)
		} else {
			f.said[g] = facts
		}
	}
	clear(f.touched)
	for _, s := range sorted(now) {
		if !proto.Equal(before[s], now[s]) {
			// What is sent is no longer the follower's.
			f.out = append(f.out, &protov1.MeshChange{Change: &protov1.MeshChange_Fact{Fact: proto.CloneOf(now[s])}})
		}
	}
	for _, s := range sorted(before) {
		if now[s] == nil {
			f.out = append(f.out, &protov1.MeshChange{Change: &protov1.MeshChange_Removed{Removed: s.proto()}})
		}
	}
}

func sorted(m map[subject]*protov1.MeshFact) []subject {
	return slices.SortedFunc(maps.Keys(m), func(a, b subject) int {
		return cmp.Or(cmp.Compare(a.pod, b.pod), cmp.Compare(a.container.id, b.container.id), cmp.Compare(a.container.scope, b.container.scope))
	})
}

func (f *follower) send() error {
	for part := range slices.Chunk(f.out, maxBatch) {
		if err := f.facts.Send(&protov1.MeshChanges{Changes: part}); err != nil {
			return err
		}
	}
	f.out = nil // the parts are no longer the follower's
	return nil
}

var _ mesh.Detector = genericDetector{}
