package resource

import (
	"cmp"
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// key names a container as the inventory does.
type key struct{ scope, id string }

func keyOf(v inventory.View) key { return key{v.Container.GetScope(), v.Container.GetId()} }

func (k key) ref() *protov1.ContainerRef { return &protov1.ContainerRef{Id: k.id, Scope: k.scope} }

// container is one that is read.
type container struct {
	identity
	source
	located  bool // source says where its groups are
	usage    Usage
	cgroups  []uint64       // that are its own, as of when it was last looked at
	traffic  kernel.Traffic // since it was started, or since it is accounted
	readings uint32
	exported bool
	label    label

	// Of the last reading of a pass.
	last     Usage // zero: there was none since it was started
	cpuShare float64
	near     [Limits]bool
	share    [Limits]float64
}

// identity is what must stay the same for a container to be the same run of the same
// container, with the same groups.
type identity struct {
	handle  inventory.Handle
	started int64  // as described
	main    string // its group on v2; "": not known
	group   uint64 // the id of that; 0: not known
	pid     uint32 // its first process, as described
}

// newContainer makes one of a description.
func (m *Monitor) newContainer(v inventory.View) *container {
	return &container{identity: m.identify(v), cgroups: v.CgroupIDs}
}

func (m *Monitor) identify(v inventory.View) identity {
	i := identity{handle: v.Handle(), started: v.Container.GetStartedUnixNano(), pid: v.Container.GetPid()}
	i.main, i.group = m.home(v)
	return i
}

// home finds a container's own group among those that are its: the one that its runtime
// names, or the outermost. Of several of the same path it is the last, whose id is the
// highest: the others are gone.
func (m *Monitor) home(v inventory.View) (main string, group uint64) {
	told := ""
	if p := v.Container.GetCgroupPath(); p != "" {
		told = path.Clean("/" + p)
	}
	outer := func(a, b string) int {
		return cmp.Or(cmp.Compare(b2i(a != told), b2i(b != told)),
			cmp.Compare(strings.Count(a, "/"), strings.Count(b, "/")), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	}
	for _, id := range v.CgroupIDs {
		g := m.options.Inventory.Lookup(id)
		if g == nil {
			continue
		}
		if group == 0 || outer(g.Path, main) < 0 || g.Path == main && id > group {
			main, group = g.Path, id
		}
	}
	if group == 0 {
		return told, 0
	}
	return main, group
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// runs tells whether a container may have processes. Not every source tells its state.
func runs(c *protov1.Container) bool {
	switch c.GetState() {
	case protov1.Container_STATE_EXITED, protov1.Container_STATE_DEAD, protov1.Container_STATE_REMOVING:
		return false
	case protov1.Container_STATE_CREATED:
		return c.GetPid() != 0 // some runtimes make the process before they start it
	}
	return true
}

// consider takes a container in, as it is described now, or takes over what is new of
// it; changed: it is another run, or another container.
func (m *Monitor) consider(k key, v inventory.View) (c *container, changed bool) {
	if !runs(v.Container) {
		m.forget(k)
		return nil, false
	}
	if c = m.containers[k]; c == nil {
		if len(m.containers) >= m.options.Most {
			return nil, false
		}
		c = m.newContainer(v)
		c.exported = len(m.containers) < m.options.Exported
		m.containers[k], m.owners[c.handle] = c, c
		m.order = append(m.order, c)
		return c, true
	}
	c.cgroups = v.CgroupIDs
	before, now := c.identity, m.identify(v)
	if now == before {
		return c, false
	}
	delete(m.owners, before.handle)
	c.identity = now
	m.owners[now.handle] = c
	if now.main != before.main || now.pid != before.pid {
		m.reader.free(&c.source)
		c.located = false
	}
	if now.another(before) {
		m.reader.free(&c.source)
		c.usage, c.last, c.traffic = Usage{}, Usage{}, kernel.Traffic{}
		c.located, c.cpuShare, c.readings = false, 0, 0
		c.near, c.share = [Limits]bool{}, [Limits]float64{}
		return c, true
	}
	return c, now.group != before.group
}

// another tells whether it is another run, or another container, than before.
func (i identity) another(before identity) bool {
	if i.group != 0 && before.group != 0 {
		return i.handle != before.handle || i.group != before.group
	}
	return i.handle != before.handle || before.started != 0 && i.started != before.started
}

// forget takes a container out.
func (m *Monitor) forget(k key) {
	c := m.containers[k]
	if c == nil {
		return
	}
	m.reader.free(&c.source)
	delete(m.containers, k)
	delete(m.owners, c.handle)
	if i := slices.Index(m.order, c); i >= 0 {
		if m.order = slices.Delete(m.order, i, i+1); i < m.next {
			m.next--
		}
	}
}

// readOne reads a container in its turn and judges how near to its limits it is.
func (m *Monitor) readOne(c *container, now time.Time) {
	m.refresh(c)
	if m.read(c, now, true) != nil {
		c.last, c.cpuShare = Usage{}, 0
		return
	}
	if used, ok := c.usage.Get(CPU); ok && c.last.time != 0 && c.usage.time > c.last.time {
		c.cpuShare = float64(used-min(used, c.last.v[CPU])) / float64(c.usage.time-c.last.time)
	}
	m.judge(c, now)
	c.last = c.usage
}

// read reads a container's files, and once more when its groups turn out to be others.
// errGone: it has none.
func (m *Monitor) read(c *container, now time.Time, keep bool) error {
	began := time.Now()
	defer func() { m.stats.Reading += time.Since(began) }()
	m.stats.Readings++
	all := c.readings%limitsEvery == 0
	again := c.located
	if !c.located || all && m.options.Hierarchies.lacks(&c.groups) {
		m.locate(c)
	}
	err := m.reader.read(&c.source, &c.usage, all, keep, now)
	if errors.Is(err, errGone) && again {
		m.reader.free(&c.source) // also where they are called the same
		m.locate(c)
		err = m.reader.read(&c.source, &c.usage, true, keep, now)
	}
	if err != nil {
		m.stats.Gone++
		m.reader.free(&c.source)
		c.located, c.usage = false, Usage{}
		return err
	}
	c.readings++
	if m.options.Traffic != nil {
		c.usage.setTraffic(c.traffic)
	}
	return nil
}

// locate finds a container's groups, and closes what is open of others.
func (m *Monitor) locate(c *container) {
	id := ""
	if w := c.handle.Workload(); w != nil {
		id = w.Container.GetId()
	}
	found := m.options.Hierarchies.locate(c.main, id, status(m.options.Proc, c.pid))
	if found != c.groups {
		m.reader.free(&c.source)
		c.groups = found
	}
	c.located = true
}
