package main

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/ebpf-tracer/ebpf-tracer/core/namespace"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func ptr[T any](v T) *T { return &v }

// Ids of the containers of figures.
const (
	webID   = "bbbbbbbbbbbbbbbbbbbb"
	proxyID = "bbcccccccccccccccccc"
)

func refs(pid, net, user uint64) []*protov1.NamespaceRef {
	return []*protov1.NamespaceRef{
		{Type: "pid", Inode: pid, Host: pid == 1}, {Type: "net", Inode: net, Host: net == 2}, {Type: "user", Inode: user, Host: user == 3},
	}
}

// Containers are one with all that can be known, one that shares its network, and one
// that is hostile.
func (*figures) Containers() []*protov1.ContainerView {
	return []*protov1.ContainerView{
		{
			Container: &protov1.Container{
				Id: webID, Name: "web-1", Runtime: "docker", State: protov1.Container_STATE_RUNNING, Pid: 4242,
				Image: &protov1.Image{Name: "shop/web", Tag: "1.2", Digest: "sha256:dddd", Id: "sha256:eeee"}, Env: []string{"SECRET=Hunter2"},
				Labels:     map[string]string{"io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "shop", "a": "b", "empty": ""},
				Entrypoint: []string{"/bin/web"}, Args: []string{"--title", "two words", ""},
				Hostname: "web-0", RestartCount: ptr(uint32(2)), ExitCode: ptr(int32(0)), CgroupPath: "/docker/" + webID,
				Mounts: []*protov1.Mount{
					{Type: "volume", Name: "data", Source: "/var/lib/data", Destination: "/data", ReadOnly: ptr(false)},
					{Type: "bind", Source: "/etc/evil\x1b[31m", Destination: "/etc/x", ReadOnly: ptr(true)}, {Type: "tmpfs", Destination: "/tmp"},
				},
				NetworkMode: "bridge",
				Networks:    []*protov1.Network{{Name: "shop", Ips: []string{"172.18.0.2", "fd00::2"}, Gateway: "172.18.0.1", InterfaceMac: "02:42:ac:12:00:02"}},
				Ports: []*protov1.Port{
					{Protocol: "tcp", ContainerPort: 80, HostPort: 8080, HostIp: "127.0.0.1"}, {Protocol: "udp", ContainerPort: 53},
				},
				Limits: &protov1.Limits{
					CpuQuotaUs: ptr(int64(150000)), CpuPeriodUs: ptr(int64(100000)), CpuShares: ptr(int64(512)), Cpuset: "0-1",
					MemoryBytes: ptr(int64(512 << 20)), SwapBytes: ptr(int64(-1)), Pids: ptr(int64(100)), BlkioWeight: ptr(int64(500)),
					BlkioThrottles: []*protov1.BlkioThrottle{{Device: "8:0", ReadBytesPerSecond: 1 << 20, WritesPerSecond: 100}},
					Ulimits:        []*protov1.Ulimit{{Name: "nofile", Soft: 1024, Hard: -1}},
					Network:        &protov1.NetworkLimit{EgressBitsPerSecond: ptr(int64(1_000_000))},
				},
				Security: &protov1.Security{User: "1000", Privileged: ptr(false), CapabilitiesAdded: []string{"NET_ADMIN"}, Seccomp: "default", ReadOnlyRoot: ptr(true)},
			},
			Pod: &protov1.Pod{Name: "web-0", Namespace: "shop", Phase: "Running", Ips: []string{"10.0.0.7"}, ServiceAccount: "shop",
				Owners: []*protov1.Owner{{Kind: "ReplicaSet", Name: "web-5f"}, {Kind: "Deployment", Name: "web"}}},
			Mesh:    &protov1.MeshFact{Mesh: "istio", Role: protov1.MeshFact_ROLE_SIDECAR, Proxy: "envoy", ProxyVersion: "1.30", Service: "web"},
			Sources: []string{"docker", "kubernetes"}, Fields: map[string]string{"name": "docker", "id": "docker", "pod_uid": "kubernetes"},
			CgroupIds: []uint64{77, 78}, Namespaces: refs(4026532201, 4026532202, 4026532203),
			Usage: &protov1.Usage{CpuSeconds: ptr(12.5), CpuThrottledSeconds: ptr(0.25), MemoryBytes: ptr(uint64(100 << 20)), OomKills: ptr(uint64(0)),
				ReceivedBytes: ptr(uint64(2048)), Pids: ptr(uint64(7)), Source: "cgroup2",
				Pressure: []*protov1.UsagePressure{{Resource: "cpu", SomeAvg10Ratio: 0.125, SomeSeconds: 3}}},
		},
		{
			Container: &protov1.Container{Id: proxyID, Scope: "containerd:default", Name: "proxy", Runtime: "containerd", State: protov1.Container_STATE_RUNNING,
				Pid: 4300, Image: &protov1.Image{Name: "proxy"}, Labels: map[string]string{"a": "c"}},
			Sources: []string{"containerd"}, Namespaces: refs(4026532301, 4026532202, 3),
		},
		{
			Container: &protov1.Container{Id: "aaaa", Name: "evil\x1b[31m\tname", State: protov1.Container_STATE_EXITED,
				Image: &protov1.Image{Id: "sha256:0123456789abcdef"}},
			Stale: true,
		},
	}
}

func (f *figures) FindContainers(word string, most int) (found []*protov1.ContainerView) {
	for _, v := range f.Containers() {
		c := v.GetContainer()
		if strings.HasPrefix(c.GetId(), word) || c.GetName() == word {
			found = append(found, v)
		}
	}
	slices.SortFunc(found, func(a, b *protov1.ContainerView) int { return cmp.Compare(a.Container.Name, b.Container.Name) })
	return found[:min(len(found), most)]
}

func (f *figures) Process(pid uint32) (*protov1.ProcessView, *protov1.ContainerView, error) {
	switch pid {
	case 1: // of the host, with namespaces that may not be read
		return &protov1.ProcessView{Pid: 1, NsPids: []uint32{1}, NsUid: ptr(uint32(0)), NsGid: ptr(uint32(0)), Comm: "init"}, nil, nil
	case 999:
		return nil, nil, fmt.Errorf("read it: %w", fs.ErrNotExist)
	}
	return &protov1.ProcessView{
		Pid: pid, NsPids: []uint32{pid, 20, 7}, Uid: 101000, Gid: 65534, NsUid: ptr(uint32(1000)), Comm: "sh\x1b[2J",
		CgroupPath: "/docker/" + webID + "/evil\x1b[31m", Namespaces: refs(4026532201, 2, 4026532203),
	}, f.Containers()[0], nil
}

func (*figures) HostPID(_ *protov1.ContainerRef, pid uint32) (uint32, error) {
	if pid != 7 {
		return 0, fmt.Errorf("find it: %w", fs.ErrNotExist)
	}
	return 4242, nil
}

func (*figures) NamespaceCounts() map[string]uint64 { return nil }

func (f *figures) Namespaces(types ...namespace.Type) (out []*protov1.Namespace) {
	for _, t := range types {
		of := map[uint64]*protov1.Namespace{}
		var inodes []uint64
		for _, v := range f.Containers() {
			for _, r := range v.GetNamespaces() {
				if r.GetType() != t.String() {
					continue
				}
				n := of[r.GetInode()]
				if n == nil {
					n = &protov1.Namespace{Ref: r}
					of[r.GetInode()] = n
					inodes = append(inodes, r.GetInode())
				}
				c := v.GetContainer()
				n.Containers = append(n.Containers, &protov1.NamespaceMember{
					Container: &protov1.ContainerRef{Id: c.GetId(), Scope: c.GetScope()}, Name: c.GetName(), Pid: c.GetPid(), NsPid: 1,
				})
				if r.GetType() == "user" && !r.GetHost() {
					n.UidMap = []*protov1.IDMap{{Inside: 0, Outside: 100000, Count: 65536}, {Inside: 70000, Outside: 1000, Count: 1}}
					n.GidMap = n.UidMap[:1]
				}
			}
		}
		slices.Sort(inodes)
		for _, inode := range inodes {
			out = append(out, of[inode])
		}
	}
	return out
}

func (f *figures) Namespace(id namespace.ID) *protov1.Namespace {
	for _, n := range f.Namespaces(id.Type) {
		if n.GetRef().GetInode() == id.Inode {
			return n
		}
	}
	return nil
}
