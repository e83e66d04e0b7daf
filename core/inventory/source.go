package inventory

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// ErrProtocol says that a plugin broke the rules of its stream.
var ErrProtocol = errors.New("the plugin broke the protocol")

// source is one discoverer: where its snapshot stands. What it tells carries the
// number of the snapshot, so that the end of one finds what it did not tell.
type source struct {
	snapshot   bool                   // between reset and synced
	generation uint64                 // of the last reset
	kinds      []protov1.WorkloadKind // of the snapshot; nil: all
	away       bool
	since      time.Time // that it is away and told nothing
	expired    bool      // what it told is forgotten
	tells      bool      // of its containers' lives
	heard      bool      // a snapshot of its containers was complete once
	deaf       time.Time // since when it may not have been heard; zero: it is
}

// told is a description by one source.
type told[T any] struct {
	what       T
	generation uint64
}

// top is the description by the source of the highest rank, nil when there is
// none.
func top[T any](facets map[string]told[*T]) *T {
	var out *T
	by := ""
	for s, f := range facets {
		if out == nil || compareSources(s, by) < 0 {
			out, by = f.what, s
		}
	}
	return out
}

// compareSources orders sources: who made the container knows it best, an
// orchestrator knows what it asked for, and the bundle on disk is what is left.
func compareSources(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) }

func rank(source string) int {
	switch source {
	case "docker", "podman":
		return 0
	case "crio", "containerd":
		return 1
	case "kubernetes":
		return 2
	case "oci":
		return 4
	}
	return 3
}

func (i *Inventory) source(name string) *source {
	s := i.sources[name]
	if s == nil {
		s = &source{}
		i.sources[name] = s
	}
	return s
}

// Apply takes a batch of changes from a discoverer, in order. Other work goes on
// between two of them; when it returns, Lookup shows them all. It is called by one
// goroutine for each discoverer. An error wraps ErrProtocol; what came before the
// fault has been applied.
func (i *Inventory) Apply(name string, changes []*protov1.InventoryChange) error {
	i.lock()
	defer i.mu.Unlock()
	defer i.finish()
	i.sweep(few)
	s := i.source(name)
	for _, c := range changes {
		if err := i.apply(name, s, c); err != nil {
			return err
		}
		i.pause()
	}
	return nil
}

func (i *Inventory) apply(name string, s *source, change *protov1.InventoryChange) error {
	switch c := change.GetChange().(type) {
	case *protov1.InventoryChange_Reset_:
		s.snapshot = true
		s.generation++
		s.kinds = c.Reset_.GetKinds()
		s.lost(i.options.Now())
	case *protov1.InventoryChange_Synced:
		if !s.snapshot {
			return fmt.Errorf("%w: synced without reset", ErrProtocol)
		}
		s.snapshot = false
		of := func(k protov1.WorkloadKind) bool { return len(s.kinds) == 0 || slices.Contains(s.kinds, k) }
		i.forgetOlder(name, s, of)
		i.setAway(name, s, false)
		if of(protov1.WorkloadKind_WORKLOAD_KIND_CONTAINER) {
			i.inferLives(name, s)
			s.heard, s.deaf = true, time.Time{}
		}
	case *protov1.InventoryChange_Container:
		i.describe(name, s.generation, c.Container)
	case *protov1.InventoryChange_Pod:
		i.describePod(name, s.generation, c.Pod)
	case *protov1.InventoryChange_Service:
		i.describeService(name, s.generation, c.Service)
	case *protov1.InventoryChange_Removed:
		i.forgotten(name, c.Removed)
	case *protov1.InventoryChange_Considered:
		i.considered(name, c.Considered.GetCgroupId())
	case *protov1.InventoryChange_Lifecycle:
		i.lived(name, c.Lifecycle)
	}
	// Subscriptions are not the inventory's.
	return nil
}

// lost notes since when the source may not have been heard.
func (s *source) lost(now time.Time) {
	if s.deaf.IsZero() {
		s.deaf = now
	}
}

func (i *Inventory) forgotten(name string, r *protov1.Removed) {
	switch w := r.GetWhat().(type) {
	case *protov1.Removed_Container:
		if c := i.container(keyOf(w.Container)); c != nil {
			i.forget(origin{name, w.Container.GetScope()}, c)
		}
	case *protov1.Removed_PodUid:
		i.forgetPod(name, w.PodUid)
	case *protov1.Removed_ServiceUid:
		i.forgetService(name, w.ServiceUid)
	}
}

// forgetOlder forgets what a source told before its last reset, of some kinds.
func (i *Inventory) forgetOlder(name string, s *source, of func(protov1.WorkloadKind) bool) {
	if of(protov1.WorkloadKind_WORKLOAD_KIND_CONTAINER) {
		for _, c := range i.containers {
			for o, f := range c.facets {
				if o.source == name && f.generation != s.generation {
					i.forget(o, c)
				}
			}
			i.pause()
		}
	}
	if of(protov1.WorkloadKind_WORKLOAD_KIND_POD) {
		for uid, p := range i.pods {
			if f, ok := p.facets[name]; ok && f.generation != s.generation {
				i.forgetPod(name, uid)
			}
			i.pause()
		}
	}
	if of(protov1.WorkloadKind_WORKLOAD_KIND_SERVICE) {
		for uid, v := range i.services {
			if f, ok := v.facets[name]; ok && f.generation != s.generation {
				i.forgetService(name, uid)
			}
			i.pause()
		}
	}
}

// Away marks a discoverer's descriptions as stale: it crashed or lost its
// runtime. They stay until it is back and tells otherwise, for Options.StaleTTL
// at most.
func (i *Inventory) Away(name string) {
	i.lock()
	defer i.mu.Unlock()
	defer i.finish()
	s := i.source(name)
	if s.snapshot || !s.away { // else it is the same absence
		s.since, s.expired = i.options.Now(), false
	}
	again := s.away && s.snapshot // and what it told anew is stale again
	s.snapshot = false
	s.lost(i.options.Now())
	i.claimants.away(name, i.options.Now())
	i.setAway(name, s, true)
	if again {
		i.remark(name)
	}
}

// Forget takes out all that a discoverer told, which tells no more: it is not
// wanted any longer. Apply must not be under way for it; it may tell anew later.
func (i *Inventory) Forget(name string) {
	i.lock()
	defer i.mu.Unlock()
	defer i.finish()
	s := i.source(name)
	s.snapshot = false
	s.generation++ // and so all it told is older
	s.expired = true
	i.forgetOlder(name, s, func(protov1.WorkloadKind) bool { return true })
	s.expired, s.heard, s.deaf = false, false, time.Time{}
	i.setAway(name, s, false)
	i.unclaim(name)
}

func (i *Inventory) setAway(name string, s *source, away bool) {
	if s.away == away {
		return
	}
	s.away = away
	s.expired = s.expired && away
	i.remark(name)
}

// remark looks again whether what a source told is stale.
func (i *Inventory) remark(name string) {
	for _, c := range i.containers {
		if c.has(name) {
			i.later(c)
		}
		i.pause()
	}
}

// toldAnew tells whether a source that was away has described the container in the
// snapshot that is under way.
func (c *container) toldAnew(name string, s *source) bool {
	if !s.snapshot {
		return false
	}
	for o, f := range c.facets {
		if o.source == name && f.gone.IsZero() && f.generation == s.generation {
			return true
		}
	}
	return false
}

// has tells whether a source described the container.
func (c *container) has(source string) bool {
	for o := range c.facets {
		if o.source == source {
			return true
		}
	}
	return false
}

// expire forgets what sources told that have been away for Options.StaleTTL. What
// a source tells in a snapshot that has begun since stays.
func (i *Inventory) expire() {
	before := i.options.Now().Add(-i.options.StaleTTL)
	for name, s := range i.sources {
		if !s.away || s.expired || s.since.After(before) {
			continue
		}
		s.expired = true
		if !s.snapshot {
			s.generation++ // and so all it told is older
		}
		i.forgetOlder(name, s, func(protov1.WorkloadKind) bool { return s.away })
	}
}
