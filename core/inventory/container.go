package inventory

import (
	"cmp"
	"path"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// key names a container: an id within the scope where it is unique.
type key struct{ scope, id string }

func keyOf(r *protov1.ContainerRef) key { return key{r.GetScope(), r.GetId()} }

// origin is where a facet is from: a source, and the scope by which it names the
// container.
type origin struct{ source, scope string }

// facet is what one origin says of a container.
type facet struct {
	told       *protov1.Container
	generation uint64    // of the source's snapshot
	gone       time.Time // zero: in force; else only for events on their way
}

// container is what is known of one container: a facet from each origin, and what
// they come to together.
type container struct {
	key      key
	facets   map[origin]*facet
	cgroups  map[*Cgroup]struct{}
	workload atomic.Pointer[Workload]
	mesh     map[string]meshFact // by detector
	removed  time.Time           // zero: described
	expired  bool                // removed since nobody vouches for it any more
	into     *container          // it turned out to be this one
	unmade   bool                // among the unmade
	life     life

	// Of its facets together.
	rank       int
	podUID     string
	claimPaths []string
	claimIDs   []uint64
}

// departure is a time at which a facet of a container went.
type departure struct {
	container *container
	at        time.Time
}

// container gives the container that a source means: by scope and id, or by the id
// alone when that is unique by itself and somebody named it without a scope.
func (i *Inventory) container(k key) *container {
	if c := i.containers[k]; c != nil || !unique(k.id) {
		return c
	}
	return i.containers[key{id: k.id}]
}

// newContainer makes a container where there is room.
func (i *Inventory) newContainer(k key) *container {
	if len(i.containers) >= most {
		i.stats.Refused++
		return nil
	}
	c := &container{
		key: k, facets: map[origin]*facet{}, cgroups: map[*Cgroup]struct{}{}, mesh: map[string]meshFact{},
	}
	i.containers[k] = c
	i.stats.Containers++
	if k.scope == "" && unique(k.id) {
		for other := range i.byID[k.id] {
			i.absorb(c, other)
		}
	}
	insert(i.byID, k.id, c)
	return c
}

// absorb moves all that was told of a container to the one that it turned out to
// be: one has its id of 64 hex digits with a scope, the other without.
func (i *Inventory) absorb(c, other *container) {
	for o, f := range other.facets {
		c.facets[o] = f
	}
	for name, f := range other.mesh {
		if _, ok := c.mesh[name]; !ok {
			c.mesh[name] = f
		}
	}
	if other.life.stage > c.life.stage {
		c.life = other.life
	}
	other.into = c
	i.inPod(c, other.podUID)
	for g := range other.cgroups {
		i.tree.mark(g.node)
	}
	there := other.removed.IsZero()
	i.drop(other)
	if there {
		i.stats.Containers--
		i.tell(i.containerChange(other.key))
	}
}

// drop ends the memory of a container.
func (i *Inventory) drop(c *container) {
	delete(i.containers, c.key)
	remove(i.byID, c.key.id, c)
	i.claim(c, nil, nil)
	i.inPod(c, "")
	i.touch(c)
	for g := range c.cgroups {
		i.tree.mark(g.node)
	}
}

// describe takes a source's description of a container, whole.
func (i *Inventory) describe(source string, generation uint64, d *protov1.Container) {
	k := key{d.GetScope(), d.GetId()}
	if k.id == "" {
		return
	}
	c := i.container(k)
	if c != nil && another(c, d) {
		// Cgroups of the earlier one that are gone keep it: the events that are still
		// on their way are its own.
		i.drop(c)
		c = nil
	}
	if c == nil {
		if c = i.newContainer(k); c == nil {
			return
		}
	}
	if !c.removed.IsZero() {
		c.removed, c.expired = time.Time{}, false
		if c.life.stage == buried && c.life.source == source { // and all the same it is there
			c.life = life{}
		}
		i.stats.Containers++
	}
	c.facets[origin{source, k.scope}] = &facet{told: d, generation: generation}
	i.changed(c)
	i.settle(few)
}

// another tells whether a description is of a later container that was given the id
// of an earlier one, whose end was told. Ids of 64 hex digits are given once.
func another(c *container, d *protov1.Container) bool {
	if unique(c.key.id) || c.removed.IsZero() || d.GetCreatedUnixNano() == 0 {
		return false
	}
	for _, f := range c.facets {
		if was := f.told.GetCreatedUnixNano(); was != 0 && was != d.GetCreatedUnixNano() {
			return true
		}
	}
	return false
}

// forget takes back what an origin said of a container. What was said last stays
// for the events that are on their way.
func (i *Inventory) forget(from origin, c *container) {
	f := c.facets[from]
	if f == nil || !f.gone.IsZero() {
		return
	}
	i.inferRemoval(from.source, c, f.told)
	f.gone = i.options.Now()
	for _, other := range c.facets {
		if other.gone.IsZero() {
			delete(c.facets, from)
			i.changed(c)
			return
		}
	}
	c.removed = f.gone
	c.expired = i.source(from.source).expired
	i.gone = append(i.gone, departure{c, f.gone})
	i.stats.Containers--
	i.touch(c)
	i.tell(i.containerChange(c.key))
}

// changed follows a change of a container's facets.
func (i *Inventory) changed(c *container) {
	i.remake(c)
	var paths []string
	var ids []uint64
	for _, f := range c.facets {
		if p := f.told.GetCgroupPath(); p != "" {
			paths = append(paths, path.Clean("/"+p))
		}
		if id := f.told.GetCgroupId(); id != 0 {
			ids = append(ids, id)
		}
	}
	i.claim(c, paths, ids)
	i.touch(c)
	i.tell(i.containerChange(c.key))
}

// claim notes the cgroups that sources name as the container's, which need not
// have been told yet, and takes back those that they named before.
func (i *Inventory) claim(c *container, paths []string, ids []uint64) {
	slices.Sort(paths)
	slices.Sort(ids)
	paths, ids = slices.Compact(paths), slices.Compact(ids)
	if slices.Equal(paths, c.claimPaths) && slices.Equal(ids, c.claimIDs) {
		return
	}
	i.touch(c)
	for _, p := range c.claimPaths {
		remove(i.tree.claimPaths, p, c)
	}
	for _, id := range c.claimIDs {
		remove(i.tree.claimIDs, id, c)
	}
	c.claimPaths, c.claimIDs = paths, ids
	for _, p := range paths {
		insert(i.tree.claimPaths, p, c)
	}
	for _, id := range ids {
		insert(i.tree.claimIDs, id, c)
	}
}

// touch has the owners of all paths looked for again that a container takes hold
// of.
func (i *Inventory) touch(c *container) {
	for n := range i.tree.byHint[c.key.id] {
		i.tree.mark(n)
	}
	for _, p := range c.claimPaths {
		i.tree.mark(i.tree.find(p))
	}
	for _, id := range c.claimIDs {
		if g := i.Lookup(id); g != nil {
			i.tree.mark(g.node)
		}
	}
}

// inPod notes the pod of a container; "": none.
func (i *Inventory) inPod(c *container, uid string) {
	if c.podUID == uid {
		return
	}
	if c.podUID != "" {
		remove(i.byPod, c.podUID, c)
		i.prunePod(c.podUID)
	}
	if c.podUID = uid; uid != "" {
		insert(i.byPod, uid, c)
	}
}

// later has the workload of a container made anew soon.
func (i *Inventory) later(c *container) {
	if !c.unmade {
		c.unmade = true
		i.unmade = append(i.unmade, c)
	}
}

// makeAnew makes up to n workloads anew.
func (i *Inventory) makeAnew(n int) {
	for ; n > 0 && len(i.unmade) > 0; n-- {
		c := i.unmade[0]
		i.unmade = i.unmade[1:]
		c.unmade = false
		if i.containers[c.key] == c {
			i.remake(c)
		}
	}
	if len(i.unmade) == 0 {
		i.unmade = nil
	}
}

// remake makes a container's workload anew. Its cgroups see it at once.
func (i *Inventory) remake(c *container) {
	w := i.merge(c)
	c.rank = rank(w.Sources[0])
	i.inPod(c, w.Container.GetPodUid())
	for _, s := range w.Sources {
		if src := i.sources[s]; src != nil && src.away && !c.toldAnew(s, src) {
			w.Stale = true
		}
	}
	if p := i.pods[c.podUID]; p != nil {
		w.Pod = p.merged
		w.Mesh = best(c.mesh, p.mesh)
	} else {
		w.Mesh = best(c.mesh, nil)
	}
	w.Fragment = i.options.Encode(w)
	c.workload.Store(w)
}

// merge puts the facets of one container together: for each field that of the
// source of the highest rank that told it.
func (i *Inventory) merge(c *container) *Workload {
	from := make([]origin, 0, len(c.facets))
	for o := range c.facets {
		from = append(from, o)
	}
	slices.SortFunc(from, func(a, b origin) int {
		return cmp.Or(compareSources(a.source, b.source), cmp.Compare(a.scope, b.scope))
	})
	w := &Workload{Container: c.facets[from[0]].told, Sources: []string{from[0].source}}
	if len(from) == 1 && from[0].scope == c.key.scope {
		return w
	}
	w.Container = proto.Clone(w.Container).(*protov1.Container)
	w.Fields = map[string]string{}
	out := w.Container.ProtoReflect()
	out.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		w.Fields[string(f.Name())] = from[0].source
		return true
	})
	for _, o := range from[1:] {
		proto.Clone(c.facets[o].told).ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			if !out.Has(f) {
				out.Set(f, v)
				w.Fields[string(f.Name())] = o.source
			}
			return true
		})
		w.Sources = append(w.Sources, o.source)
	}
	w.Sources = slices.Compact(w.Sources)
	w.Container.Scope = c.key.scope // it is named by what it is kept under
	if w.Container.Scope == "" {
		delete(w.Fields, "scope")
	}
	return w
}
