package daemon

import (
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/namespace"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// usages tells what containers use.
type usages interface {
	// Of gives what a container uses now; false: it can't be measured.
	Of(ref *protov1.ContainerRef) (*protov1.Usage, bool)
	// Last gives what it used when it was last measured; false: it was not.
	Last(ref *protov1.ContainerRef) (*protov1.Usage, bool)
}

// unmeasured tells of nothing.
type unmeasured struct{}

func (unmeasured) Of(*protov1.ContainerRef) (*protov1.Usage, bool)   { return nil, false }
func (unmeasured) Last(*protov1.ContainerRef) (*protov1.Usage, bool) { return nil, false }

// findNamespaces finds out which namespaces are the host's.
func (d *daemon) findNamespaces() error {
	host, err := namespace.FindHost("/proc")
	if err != nil {
		return err
	}
	if host.Doubt != "" {
		d.log.Warn("containers may seem to use the host's namespaces, or not to", "reason", host.Doubt)
	}
	d.namespaces = namespace.New(namespace.Options{Inventory: d.inventory, Host: host, Monotonic: kernel.Monotonic})
	return nil
}

// Containers that are described now, with what they used when they were last measured.
func (s source) Containers() []*protov1.ContainerView {
	return s.containerViews(s.inventory.Containers(), s.usage.Last)
}

// FindContainers gives those that a word means, in order, and at most so many, with what
// they use now.
func (s source) FindContainers(word string, most int) []*protov1.ContainerView {
	return s.containerViews(s.inventory.Find(word, most), s.usage.Of)
}

// measure is one of the usages' two.
type measure func(*protov1.ContainerRef) (*protov1.Usage, bool)

func (s source) containerViews(views []inventory.View, usage measure) []*protov1.ContainerView {
	out := make([]*protov1.ContainerView, 0, len(views))
	for _, v := range views {
		out = append(out, s.containerView(v, usage))
	}
	return out
}

func (s source) containerView(v inventory.View, usage measure) *protov1.ContainerView {
	out := &protov1.ContainerView{
		Container: v.Container, Sources: v.Sources, Stale: v.Stale, Pod: v.Pod, Mesh: v.Mesh,
		CgroupIds: v.CgroupIDs, Fields: v.Fields,
	}
	ref := &protov1.ContainerRef{Id: v.Container.GetId(), Scope: v.Container.GetScope()}
	if set, ok := s.namespaces.Of(ref); ok {
		out.Namespaces = s.refs(set)
	}
	if u, ok := usage(ref); ok {
		out.Usage = u
	}
	return out
}

// Process tells of a process of the host, and of the container that it belongs to, nil
// when it is none's.
func (s source) Process(pid uint32) (*protov1.ProcessView, *protov1.ContainerView, error) {
	cgroup, err := s.inventory.OfPID(pid)
	if err != nil {
		return nil, nil, err
	}
	p, err := s.namespaces.Process(pid)
	if err != nil {
		return nil, nil, err
	}
	process := &protov1.ProcessView{
		Pid: pid, NsPids: p.PIDs, Uid: p.UID, Gid: p.GID, NsUid: p.NSUID, NsGid: p.NSGID, Comm: p.Comm,
		Namespaces: s.refs(p.Namespaces),
	}
	if cgroup != nil {
		process.CgroupPath = cgroup.Path
	}
	v, ok := s.inventory.View(cgroup)
	if !ok {
		return process, nil, nil
	}
	return process, s.containerView(v, s.usage.Of), nil
}

// HostPID gives the pid on the host of a container's process.
func (s source) HostPID(container *protov1.ContainerRef, pid uint32) (uint32, error) {
	return s.namespaces.HostPID(container, pid)
}

// Namespaces that containers are in, of some types.
func (s source) Namespaces(types ...namespace.Type) []*protov1.Namespace {
	all := s.namespaces.List(types...)
	out := make([]*protov1.Namespace, 0, len(all))
	for _, n := range all {
		out = append(out, namespaceView(n))
	}
	return out
}

// Namespace gives one of them, nil when no container is known to be in it.
func (s source) Namespace(id namespace.ID) *protov1.Namespace {
	n, ok := s.namespaces.Get(id)
	if !ok {
		return nil
	}
	return namespaceView(n)
}

func namespaceView(n namespace.Namespace) *protov1.Namespace {
	out := &protov1.Namespace{
		Ref:    &protov1.NamespaceRef{Type: n.Type.String(), Inode: n.Inode, Host: n.Host},
		UidMap: idMaps(n.UIDs), GidMap: idMaps(n.GIDs),
	}
	for _, m := range n.Containers {
		out.Containers = append(out.Containers, &protov1.NamespaceMember{
			Container: &protov1.ContainerRef{Id: m.ID, Scope: m.Scope}, Name: m.Name, Pid: m.PID, NsPid: m.NSPID,
		})
	}
	return out
}

func idMaps(m namespace.Map) (out []*protov1.IDMap) {
	for _, e := range m {
		out = append(out, &protov1.IDMap{Inside: e.Inside, Outside: e.Outside, Count: e.Count})
	}
	return out
}

func (s source) refs(set namespace.Set) (out []*protov1.NamespaceRef) {
	for t, inode := range set {
		if inode != 0 {
			id := namespace.ID{Type: namespace.Type(t), Inode: inode}
			out = append(out, &protov1.NamespaceRef{Type: id.Type.String(), Inode: inode, Host: s.namespaces.IsHost(id)})
		}
	}
	return out
}
