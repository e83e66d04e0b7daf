package main

import (
	"cmp"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// describer turns the engine's words into the contract's. It does no I/O but
// the look at whether a cgroup is there, and is safe for concurrent use.
type describer struct {
	filter  *describe.Filter
	cgroups cgroups
}

// Keys that an orchestrator labels containers with.
const (
	labelPodUID        = "io.kubernetes.pod.uid"
	labelSandboxID     = "io.kubernetes.sandbox.id"
	labelContainerName = "io.kubernetes.container.name"
	labelType          = "io.kubernetes.docker.type"
)

// base describes a container by what all of the engine's answers tell.
func (d *describer) base(clip *describe.Clip, id, name, image string, labels map[string]string) *protov1.Container {
	c := &protov1.Container{
		Id: clip.Text("id", id), Name: clip.Text("name", strings.TrimPrefix(name, "/")),
		Image: describe.ParseImage(clip.Text("image", image)), Runtime: d.cgroups.engine.runtime,
		PodUid: clip.Text("pod_uid", labels[labelPodUID]), SandboxId: clip.Text("sandbox_id", labels[labelSandboxID]),
		KubernetesName: clip.Text("kubernetes_name", labels[labelContainerName]),
	}
	c.Labels = labels // the filter's to bound
	switch labels[labelType] {
	case "podsandbox":
		c.Type = "sandbox"
	case "container":
		c.Type = "app"
	}
	return c
}

// finish applies what the operator chose.
func (d *describer) finish(clip *describe.Clip, c *protov1.Container) *protov1.Container {
	c.Truncated = clip.Fields()
	d.filter.Apply(c)
	return c
}

// inspected describes a container from what inspect answers.
func (d *describer) inspected(in *container.InspectResponse) *protov1.Container {
	cfg, host := in.Config, in.HostConfig
	if cfg == nil {
		cfg = &container.Config{}
	}
	if host == nil {
		host = &container.HostConfig{}
	}
	clip := &describe.Clip{}
	c := d.base(clip, in.ID, in.Name, cfg.Image, cfg.Labels)
	c.Annotations = host.Annotations
	c.Image = describe.WithID(c.Image, in.Image)
	if m := in.ImageManifestDescriptor; m != nil && c.Image.Digest == "" {
		c.Image.Digest = describe.Cut(m.Digest.String(), describe.MaxName)
	}
	c.CreatedUnixNano = unixNano(in.Created)
	c.RestartCount = proto.Uint32(clampU32(int64(in.RestartCount)))
	if s := in.State; s != nil {
		c.State = state(s.Status)
		c.OomKilled = proto.Bool(s.OOMKilled)
		c.StartedUnixNano, c.FinishedUnixNano = unixNano(s.StartedAt), unixNano(s.FinishedAt)
		c.Pid = clampU32(int64(s.Pid))
		if exited(c.State) {
			c.ExitCode = proto.Int32(int32(s.ExitCode))
		}
	}
	c.Entrypoint, c.Args = clip.Words("entrypoint", cfg.Entrypoint), clip.Words("args", cfg.Cmd)
	if len(c.Entrypoint) == 0 && len(c.Args) == 0 && in.Path != "" {
		c.Args = clip.Words("args", append([]string{in.Path}, in.Args...))
	}
	c.Env = cfg.Env
	c.Mounts = mounts(clip, in.Mounts, host.Tmpfs)
	c.NetworkMode = clip.Text("network_mode", string(host.NetworkMode))
	c.Hostname = clip.Text("hostname", cfg.Hostname)
	if cfg.Domainname != "" {
		c.Hostname = clip.Text("hostname", cfg.Hostname+"."+cfg.Domainname)
	}
	if n := in.NetworkSettings; n != nil {
		c.Ports = ports(clip, cfg.ExposedPorts, n.Ports)
		c.Networks = networks(clip, n.Networks)
	}
	c.Limits = limits(clip, &host.Resources)
	c.Security = security(clip, in, cfg, host)
	c.CgroupPath, c.CgroupId = d.cgroups.find(in.ID, host.CgroupParent, c.Pid != 0)
	return d.finish(clip, c)
}

// summarized describes a container from its line in the list: less than
// inspect tells, in one request for all.
func (d *describer) summarized(s *container.Summary) *protov1.Container {
	clip := &describe.Clip{}
	c := d.base(clip, s.ID, summaryName(s.Names), s.Image, s.Labels)
	c.Image = describe.WithID(c.Image, s.ImageID)
	if m := s.ImageManifestDescriptor; m != nil && c.Image.Digest == "" {
		c.Image.Digest = describe.Cut(m.Digest.String(), describe.MaxName)
	}
	c.State = state(s.State)
	if s.Created > 0 {
		c.CreatedUnixNano = s.Created * int64(time.Second)
	}
	c.NetworkMode = clip.Text("network_mode", s.HostConfig.NetworkMode)
	c.Mounts = mounts(clip, s.Mounts, nil)
	if s.NetworkSettings != nil {
		c.Networks = networks(clip, s.NetworkSettings.Networks)
	}
	for _, p := range s.Ports {
		if !clip.Room("ports", len(c.Ports), describe.MaxPorts) {
			break
		}
		port := &protov1.Port{Protocol: clip.Text("ports", p.Type), ContainerPort: uint32(p.PrivatePort), HostPort: uint32(p.PublicPort)}
		if p.IP.IsValid() {
			port.HostIp = p.IP.String()
		}
		c.Ports = append(c.Ports, port)
	}
	return d.finish(clip, c)
}

// summaryName picks the container's own name: those of links have a slash more.
func summaryName(names []string) string {
	for _, n := range names {
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			return n
		}
	}
	if len(names) > 0 {
		return path.Base(names[0])
	}
	return ""
}

func state(s container.ContainerState) protov1.Container_State {
	switch s {
	case container.StateCreated, "configured", "initialized": // the latter two are Podman's
		return protov1.Container_STATE_CREATED
	case container.StateRunning:
		return protov1.Container_STATE_RUNNING
	case container.StatePaused:
		return protov1.Container_STATE_PAUSED
	case container.StateRestarting:
		return protov1.Container_STATE_RESTARTING
	case container.StateExited, "stopped":
		return protov1.Container_STATE_EXITED
	case container.StateDead:
		return protov1.Container_STATE_DEAD
	case container.StateRemoving:
		return protov1.Container_STATE_REMOVING
	}
	return protov1.Container_STATE_UNSPECIFIED
}

// exited tells the states in which an exit code means something.
func exited(s protov1.Container_State) bool {
	switch s {
	case protov1.Container_STATE_EXITED, protov1.Container_STATE_DEAD, protov1.Container_STATE_RESTARTING, protov1.Container_STATE_REMOVING:
		return true
	}
	return false
}

// unixNano reads a time of the engine; the zero time, which stands for "not
// yet", is 0.
func unixNano(s string) int64 {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < 1970 {
		return 0
	}
	return t.UnixNano()
}

func mounts(clip *describe.Clip, points []container.MountPoint, tmpfs map[string]string) []*protov1.Mount {
	var out []*protov1.Mount
	left := describe.MaxMountBytes
	for _, p := range points {
		m := &protov1.Mount{
			Type: clip.Text("mounts", string(p.Type)), Source: clip.Text("mounts", p.Source), Destination: clip.Text("mounts", p.Destination),
			Name: clip.Text("mounts", p.Name), ReadOnly: proto.Bool(!p.RW),
		}
		if left -= proto.Size(m); left < 0 || !clip.Room("mounts", len(out), describe.MaxMounts) {
			clip.Shortened("mounts")
			return out
		}
		out = append(out, m)
	}
	for _, dest := range slices.Sorted(maps.Keys(tmpfs)) {
		if left -= describe.MaxName; left < 0 || !clip.Room("mounts", len(out), describe.MaxMounts) {
			clip.Shortened("mounts")
			return out
		}
		readOnly := slices.Contains(strings.Split(tmpfs[dest], ","), "ro")
		out = append(out, &protov1.Mount{Type: "tmpfs", Destination: clip.Text("mounts", dest), ReadOnly: proto.Bool(readOnly)})
	}
	return out
}

// ports lists those that the image or the user exposed, and where they are
// published.
func ports(clip *describe.Clip, exposed network.PortSet, published network.PortMap) []*protov1.Port {
	all := make(map[network.Port][]network.PortBinding, len(exposed)+len(published))
	for p := range exposed {
		all[p] = nil
	}
	maps.Copy(all, published)
	keys := slices.SortedFunc(maps.Keys(all), func(a, b network.Port) int {
		return cmp.Or(cmp.Compare(a.Num(), b.Num()), cmp.Compare(a.Proto(), b.Proto()))
	})
	var out []*protov1.Port
	for _, p := range keys {
		bindings := all[p]
		if len(bindings) == 0 {
			bindings = []network.PortBinding{{}}
		}
		for _, b := range bindings {
			if !clip.Room("ports", len(out), describe.MaxPorts) {
				return out
			}
			port := &protov1.Port{Protocol: string(p.Proto()), ContainerPort: uint32(p.Num())}
			if n, err := strconv.ParseUint(b.HostPort, 10, 16); err == nil {
				port.HostPort = uint32(n)
			}
			if b.HostIP.IsValid() {
				port.HostIp = b.HostIP.String()
			}
			out = append(out, port)
		}
	}
	return out
}

func networks(clip *describe.Clip, nets map[string]*network.EndpointSettings) []*protov1.Network {
	var out []*protov1.Network
	for _, name := range slices.Sorted(maps.Keys(nets)) {
		e := nets[name]
		if e == nil {
			continue
		}
		if !clip.Room("networks", len(out), describe.MaxNetworks) {
			break
		}
		n := &protov1.Network{Name: clip.Text("networks", name), InterfaceMac: e.MacAddress.String()}
		for _, ip := range []netip.Addr{e.IPAddress, e.GlobalIPv6Address} {
			if ip.IsValid() {
				n.Ips = append(n.Ips, ip.String())
			}
		}
		if g := e.Gateway; g.IsValid() {
			n.Gateway = g.String()
		} else if g := e.IPv6Gateway; g.IsValid() {
			n.Gateway = g.String()
		}
		out = append(out, n)
	}
	return out
}

// limits: the engine's 0 and negative numbers stand for no limit.
func limits(clip *describe.Clip, r *container.Resources) *protov1.Limits {
	l := &protov1.Limits{
		CpuQuotaUs: limit(r.CPUQuota), Cpuset: clip.Text("limits", r.CpusetCpus),
		MemoryBytes: limit(r.Memory), SwapBytes: limit(0), MemoryReservationBytes: limit(r.MemoryReservation), Pids: limit(0),
	}
	if r.CPUPeriod > 0 {
		l.CpuPeriodUs = proto.Int64(r.CPUPeriod)
	}
	if r.NanoCPUs > 0 {
		const period = 100_000 // what the engine writes for --cpus
		l.CpuPeriodUs, l.CpuQuotaUs = proto.Int64(period), proto.Int64(int64(float64(r.NanoCPUs)*period/1e9))
	}
	if r.CPUShares > 0 {
		l.CpuShares = proto.Int64(r.CPUShares)
	}
	if r.Memory > 0 && r.MemorySwap >= r.Memory { // the engine's is memory and swap together
		l.SwapBytes = proto.Int64(r.MemorySwap - r.Memory)
	}
	if r.PidsLimit != nil {
		l.Pids = limit(*r.PidsLimit)
	}
	if r.BlkioWeight > 0 {
		l.BlkioWeight = proto.Int64(int64(r.BlkioWeight))
	}
	l.BlkioThrottles = throttles(clip, r)
	for _, u := range r.Ulimits {
		if u != nil && clip.Room("limits", len(l.Ulimits), describe.MaxUlimits) {
			l.Ulimits = append(l.Ulimits, &protov1.Ulimit{Name: clip.Text("limits", u.Name), Soft: u.Soft, Hard: u.Hard})
		}
	}
	return l
}

// throttles puts the four lists together, by device: its path, as the engine was told it.
func throttles(clip *describe.Clip, r *container.Resources) []*protov1.BlkioThrottle {
	var out []*protov1.BlkioThrottle
	each := func(list []*blkiodev.ThrottleDevice, set func(t *protov1.BlkioThrottle, rate uint64)) {
		for _, in := range list {
			if in == nil {
				continue
			}
			t := describe.Throttle(clip, &out, clip.Text("limits", in.Path))
			if t == nil {
				return
			}
			set(t, in.Rate)
		}
	}
	each(r.BlkioDeviceReadBps, func(t *protov1.BlkioThrottle, n uint64) { t.ReadBytesPerSecond = n })
	each(r.BlkioDeviceWriteBps, func(t *protov1.BlkioThrottle, n uint64) { t.WriteBytesPerSecond = n })
	each(r.BlkioDeviceReadIOps, func(t *protov1.BlkioThrottle, n uint64) { t.ReadsPerSecond = n })
	each(r.BlkioDeviceWriteIOps, func(t *protov1.BlkioThrottle, n uint64) { t.WritesPerSecond = n })
	return out
}

func limit(n int64) *int64 {
	if n <= 0 {
		n = -1
	}
	return &n
}

func security(clip *describe.Clip, in *container.InspectResponse, cfg *container.Config, host *container.HostConfig) *protov1.Security {
	s := &protov1.Security{
		User: clip.Text("security", cfg.User), Privileged: proto.Bool(host.Privileged), ReadOnlyRoot: proto.Bool(host.ReadonlyRootfs),
		CapabilitiesAdded: clip.Words("security", host.CapAdd), CapabilitiesDropped: clip.Words("security", host.CapDrop),
		Apparmor: clip.Text("security", in.AppArmorProfile), Selinux: clip.Text("security", in.ProcessLabel), Seccomp: "default",
	}
	if host.Privileged {
		s.Seccomp = "unconfined"
	}
	for _, opt := range host.SecurityOpt {
		key, value, ok := strings.Cut(opt, "=")
		if !ok {
			key, value, _ = strings.Cut(opt, ":") // as it was written before Docker 1.11
		}
		switch key {
		case "seccomp":
			if strings.HasPrefix(strings.TrimSpace(value), "{") {
				value = "custom" // the client sends the whole profile
			}
			s.Seccomp = clip.Text("security", value)
		case "apparmor":
			if s.Apparmor == "" {
				s.Apparmor = clip.Text("security", value)
			}
		case "label":
			if s.Selinux == "" {
				s.Selinux = clip.Text("security", value)
			}
		}
	}
	return s
}

func clampU32(n int64) uint32 { return uint32(min(max(n, 0), 1<<32-1)) }
