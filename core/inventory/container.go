package inventory

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// ErrNoDefaultHierarchy says that this host has cgroup v1 alone.
var ErrNoDefaultHierarchy = errors.New("no cgroup2 hierarchy is mounted: containers are told apart by it; mount one (mount -t cgroup2 none /sys/fs/cgroup/unified) or boot with systemd.unified_cgroup_hierarchy=1")

// key names a container: an id within the scope where it is unique.
type key struct{ scope, id string }

func keyOf(r *protov1.ContainerRef) key { return key{r.GetScope(), r.GetId()} }

// container is what is known of one container: a facet from each discoverer, and
// what they come to together.
type container struct {
	key      key
	facets   map[string]*protov1.Container // by source
	cgroups  map[*Cgroup]struct{}
	workload *Workload
	mesh     map[string]*protov1.MeshFact // by detector
	removed  time.Time                    // zero: described
}

// claims tells whether a source named this very cgroup as the container's.
func (c *container) claims(g *Cgroup) bool {
	for _, f := range c.facets {
		if f.GetCgroupId() == g.ID && g.ID != 0 || f.GetCgroupPath() == g.Path && g.Path != "" {
			return true
		}
	}
	return false
}

// container gives the container of a key, and makes it where there is room.
func (i *Inventory) container(k key) *container {
	c := i.containers[k]
	if c != nil {
		return c
	}
	if len(i.containers) >= most {
		i.stats.Refused++
		return nil
	}
	c = &container{
		key: k, facets: map[string]*protov1.Container{}, cgroups: map[*Cgroup]struct{}{},
		mesh: map[string]*protov1.MeshFact{},
	}
	i.containers[k] = c
	if i.byID[k.id] == nil {
		i.byID[k.id] = map[*container]struct{}{}
	}
	i.byID[k.id][c] = struct{}{}
	return c
}

// describe takes a source's description of a container, whole.
func (i *Inventory) describe(source string, d *protov1.Container) {
	if d.GetId() == "" {
		return
	}
	c := i.container(key{d.GetScope(), d.GetId()})
	if c == nil {
		return
	}
	c.removed = time.Time{}
	c.facets[source] = d
	i.changed(c)
	if g := i.byPath[d.GetCgroupPath()]; g != nil && d.GetCgroupPath() != "" {
		i.claim(c, g)
	}
	if g := i.Lookup(d.GetCgroupId()); g != nil && d.GetCgroupId() != 0 {
		i.claim(c, g)
	}
	for g := range i.byHint[d.GetId()] {
		i.own(g)
	}
}

// claim gives a container the cgroup that its source named, unless an outer
// container owns it.
func (i *Inventory) claim(c *container, g *Cgroup) {
	if g.owner == c {
		return
	}
	if outer := i.hinted(g, len(g.Path)+1); outer != nil && outer != c {
		return
	}
	if g.owner != nil {
		delete(g.owner.cgroups, g)
		i.stats.Corrected++
	}
	g.owner = c
	c.cgroups[g] = struct{}{}
	g.workload.Store(c.workload)
}

// forget takes back what a source said of a container. What was said stays for
// the events that are on their way.
func (i *Inventory) forget(source string, k key) {
	c := i.containers[k]
	if c == nil || c.facets[source] == nil {
		return
	}
	if len(c.facets) > 1 {
		delete(c.facets, source)
		i.changed(c)
		return
	}
	if c.removed.IsZero() {
		c.removed = i.options.Now()
		i.gone = append(i.gone, c)
		i.tell(i.containerChange(k))
	}
}

// changed makes a container's workload anew.
func (i *Inventory) changed(c *container) {
	w := &Workload{}
	w.Container, w.Sources, w.Fields = i.merge(c.facets)
	for _, s := range w.Sources {
		if src := i.sources[s]; src != nil && src.away {
			w.Stale = true
		}
	}
	if p := i.pods[w.Container.GetPodUid()]; p != nil {
		w.Pod = p.merged()
		w.Mesh = best(c.mesh, p.mesh)
	} else {
		w.Mesh = best(c.mesh, nil)
	}
	w.Fragment = i.options.Encode(w)
	c.workload = w
	for g := range c.cgroups {
		g.workload.Store(w)
	}
	i.tell(i.containerChange(c.key))
}

// merge puts the facets of one container together: for each field the source of
// the highest rank that told it.
func (i *Inventory) merge(facets map[string]*protov1.Container) (*protov1.Container, []string, map[string]string) {
	sources := make([]string, 0, len(facets))
	for s := range facets {
		sources = append(sources, s)
	}
	slices.SortFunc(sources, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
	if len(sources) == 1 {
		return facets[sources[0]], sources, nil
	}
	merged := proto.Clone(facets[sources[0]]).(*protov1.Container)
	fields := map[string]string{}
	out := merged.ProtoReflect()
	out.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		fields[string(f.Name())] = sources[0]
		return true
	})
	for _, s := range sources[1:] {
		proto.Clone(facets[s]).ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			if !out.Has(f) {
				out.Set(f, v)
				fields[string(f.Name())] = s
			}
			return true
		})
	}
	return merged, sources, fields
}

// rank orders sources: who made the container knows it best, an orchestrator
// knows what it asked for, and the bundle on disk is what is left.
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

// sweep drops what has been gone for the grace period.
func (i *Inventory) sweep() {
	before := i.options.Now().Add(-grace)
	for len(i.leaving) > 0 && i.leaving[0].removed.Before(before) {
		g := i.leaving[0]
		i.leaving = i.leaving[1:]
		i.store(g, false)
		for _, h := range g.hints {
			delete(i.byHint[h], g)
			if len(i.byHint[h]) == 0 {
				delete(i.byHint, h)
			}
		}
		if g.owner != nil {
			delete(g.owner.cgroups, g)
		}
	}
	for len(i.gone) > 0 && i.gone[0].removed.Before(before) {
		c := i.gone[0]
		i.gone = i.gone[1:]
		if c.removed.IsZero() || i.containers[c.key] != c {
			continue // it came back
		}
		if len(c.cgroups) > 0 { // its cgroup is still there: so may its events be
			c.removed = i.options.Now()
			i.gone = append(i.gone, c)
			continue
		}
		delete(i.containers, c.key)
		delete(i.byID[c.key.id], c)
		if len(i.byID[c.key.id]) == 0 {
			delete(i.byID, c.key.id)
		}
	}
}
