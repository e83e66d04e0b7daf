package main

import (
	"cmp"
	"strings"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// describer turns the runtime's words into the contract's. It does no I/O but the look
// at whether a cgroup is there, and is safe for concurrent use.
type describer struct {
	runtime string // what it calls itself
	node    string
	filter  *describe.Filter
	root    string        // of the default cgroup hierarchy; "": nowhere
	unread  atomic.Uint64 // answers that could not be read whole
}

func newDescriber(c Config, node *protov1.Node) *describer {
	return &describer{node: node.GetName(), root: node.GetCgroupRoot(), filter: describe.NewFilter(c.FilterConfig)}
}

// Keys that a kubelet labels and annotates containers with.
const (
	labelPodUID        = "io.kubernetes.pod.uid"
	labelContainerName = "io.kubernetes.container.name"
	annotationPorts    = "io.kubernetes.container.ports"
)

const (
	// sandboxName is what the container of a sandbox itself is called: it has no name in
	// the pod's specification, and Kubernetes has called it so since it had one.
	sandboxName = "POD"
	typeSandbox = "sandbox"
)

// base describes a container by what all of the runtime's answers tell.
func (d *describer) base(clip *describe.Clip, id, name string, labels, annotations map[string]string) *protov1.Container {
	c := &protov1.Container{
		Id: id, Runtime: d.runtime, Name: clip.Text("name", cmp.Or(name, labels[labelContainerName])),
		KubernetesName: clip.Text("kubernetes_name", cmp.Or(labels[labelContainerName], name)),
		PodUid:         clip.Text("pod_uid", labels[labelPodUID]),
		Labels:         labels,
		Annotations:    annotations,
	}
	if p := annotations[annotationPorts]; p != "" {
		c.Ports = d.specifiedPorts(clip, p)
	}
	return c
}

// chosen is a description as the operator chose it, complete.
func (d *describer) chosen(clip *describe.Clip, c *protov1.Container) *protov1.Container {
	c.Truncated = append(c.Truncated, clip.Fields()...)
	d.filter.Apply(c)
	return c
}

// listed describes a container from its line in the list.
func (d *describer) listed(l *cri.Container) *protov1.Container {
	clip := &describe.Clip{}
	c := d.base(clip, l.GetId(), l.GetMetadata().GetName(), l.GetLabels(), l.GetAnnotations())
	c.SandboxId = clip.Text("sandbox_id", l.GetPodSandboxId())
	c.Image = image(l.GetImage(), l.GetImageRef(), l.GetImageId())
	c.RestartCount = proto.Uint32(l.GetMetadata().GetAttempt())
	c.State, c.CreatedUnixNano = containerState(l.GetState()), time64(l.GetCreatedAt())
	return d.chosen(clip, c)
}

// container describes a container from its status.
func (d *describer) container(s *cri.ContainerStatus) *protov1.Container {
	clip := &describe.Clip{}
	c := d.status(clip, s)
	return d.chosen(clip, c)
}

func (d *describer) status(clip *describe.Clip, s *cri.ContainerStatus) *protov1.Container {
	c := d.base(clip, s.GetId(), s.GetMetadata().GetName(), s.GetLabels(), s.GetAnnotations())
	c.Image = image(s.GetImage(), s.GetImageRef(), s.GetImageId())
	c.RestartCount = proto.Uint32(s.GetMetadata().GetAttempt())
	c.State = containerState(s.GetState())
	c.CreatedUnixNano, c.StartedUnixNano = time64(s.GetCreatedAt()), time64(s.GetStartedAt())
	if c.State == protov1.Container_STATE_EXITED {
		c.FinishedUnixNano = time64(s.GetFinishedAt())
		if code := s.GetExitCode(); code >= 0 { // CRI-O says -1 while it does not know
			c.ExitCode = proto.Int32(code)
		}
		c.OomKilled = proto.Bool(s.GetReason() == "OOMKilled")
	}
	c.Mounts = mounts(clip, s.GetMounts())
	c.Limits = limits(clip, s.GetResources().GetLinux())
	return c
}

// sandbox describes the pod of a sandbox from its status.
func (d *describer) sandbox(s *cri.PodSandboxStatus) *sandbox {
	out := d.pod(s.GetId(), s.GetMetadata(), s.GetState(), s.GetCreatedAt(), s.GetLabels(), s.GetAnnotations())
	if o := s.GetLinux().GetNamespaces().GetOptions(); o != nil {
		out.pod.HostNetwork = proto.Bool(o.GetNetwork() == cri.NamespaceMode_NODE)
	}
	out.pod.Ips = addresses(s.GetNetwork())
	return out
}

// listedSandbox describes the pod of a sandbox from its line in the list.
func (d *describer) listedSandbox(s *cri.PodSandbox) *sandbox {
	return d.pod(s.GetId(), s.GetMetadata(), s.GetState(), s.GetCreatedAt(), s.GetLabels(), s.GetAnnotations())
}

func (d *describer) pod(id string, m *cri.PodSandboxMetadata, state cri.PodSandboxState, created int64, labels, annotations map[string]string) *sandbox {
	name := func(s string) string { return describe.Cut(s, describe.MaxName) }
	like := &protov1.Container{Labels: labels, Annotations: annotations}
	d.filter.Apply(like) // what holds for containers holds for their pods
	return &sandbox{
		id: id, created: time64(created), stage: stageOf(sandboxState(state)),
		pod: &protov1.Pod{
			Uid: name(m.GetUid()), Name: name(m.GetName()), Namespace: name(m.GetNamespace()), Node: d.node,
			Labels: like.Labels, Annotations: like.Annotations,
		},
	}
}

// sandboxContainer describes a sandbox's own container from the sandbox's status.
func (d *describer) sandboxContainer(s *cri.PodSandboxStatus) *protov1.Container {
	c := d.ownContainer(s.GetId(), s.GetMetadata(), s.GetState(), s.GetCreatedAt(), s.GetLabels(), s.GetAnnotations())
	switch o := s.GetLinux().GetNamespaces().GetOptions(); {
	case o == nil:
	case o.GetNetwork() == cri.NamespaceMode_NODE:
		c.NetworkMode = "host"
	default:
		if ips := addresses(s.GetNetwork()); len(ips) > 0 {
			c.Networks = []*protov1.Network{{Ips: ips}}
		}
	}
	return c
}

// listedSandboxContainer describes a sandbox's own container from the sandbox's line in
// the list.
func (d *describer) listedSandboxContainer(s *cri.PodSandbox) *protov1.Container {
	return d.ownContainer(s.GetId(), s.GetMetadata(), s.GetState(), s.GetCreatedAt(), s.GetLabels(), s.GetAnnotations())
}

func (d *describer) ownContainer(id string, m *cri.PodSandboxMetadata, state cri.PodSandboxState, created int64, labels, annotations map[string]string) *protov1.Container {
	clip := &describe.Clip{}
	c := d.base(clip, id, sandboxName, labels, annotations)
	c.KubernetesName, c.Type, c.SandboxId = sandboxName, typeSandbox, id
	if uid := m.GetUid(); uid != "" {
		c.PodUid = clip.Text("pod_uid", uid)
	}
	c.RestartCount = proto.Uint32(m.GetAttempt())
	c.State, c.CreatedUnixNano = sandboxState(state), time64(created)
	if c.State == protov1.Container_STATE_RUNNING {
		c.StartedUnixNano = c.CreatedUnixNano // it is not told apart
	}
	return d.chosen(clip, c)
}

func containerState(s cri.ContainerState) protov1.Container_State {
	switch s {
	case cri.ContainerState_CONTAINER_CREATED:
		return protov1.Container_STATE_CREATED
	case cri.ContainerState_CONTAINER_RUNNING:
		return protov1.Container_STATE_RUNNING
	case cri.ContainerState_CONTAINER_EXITED:
		return protov1.Container_STATE_EXITED
	}
	return protov1.Container_STATE_UNSPECIFIED
}

func sandboxState(s cri.PodSandboxState) protov1.Container_State {
	if s == cri.PodSandboxState_SANDBOX_READY {
		return protov1.Container_STATE_RUNNING
	}
	return protov1.Container_STATE_EXITED
}

// time64 is a time of the runtime; those before 1970 stand for "not yet".
func time64(ns int64) int64 { return max(ns, 0) }

func addresses(n *cri.PodSandboxNetworkStatus) []string {
	var out []string
	add := func(ip string) {
		if ip != "" && len(out) < maxIPs {
			out = append(out, describe.Cut(ip, describe.MaxName))
		}
	}
	add(n.GetIp())
	for _, ip := range n.GetAdditionalIps() {
		add(ip.GetIp())
	}
	return out
}

const maxIPs = 16

// image puts together what the runtime tells of an image: what the user asked for where
// it is told, a name that the image has, its digest among its names, and its id.
func image(spec *cri.ImageSpec, ref, id string) *protov1.Image {
	name := cmp.Or(spec.GetUserSpecifiedImage(), spec.GetImage())
	img := describe.ParseImage(name)
	if img.Name == "" && spec.GetImage() != "" {
		img = describe.ParseImage(spec.GetImage())
	}
	if n, digest, ok := strings.Cut(ref, "@"); ok {
		if img.Name == "" {
			img.Name = describe.Cut(n, describe.MaxName)
		}
		if img.Digest == "" {
			img.Digest = describe.Cut(digest, describe.MaxName)
		}
	} else if id == "" {
		id = ref
	}
	if hex, ok := describe.ImageID(id); ok {
		img.Id = hex
	}
	return img
}

func mounts(clip *describe.Clip, all []*cri.Mount) []*protov1.Mount {
	var out []*protov1.Mount
	left := describe.MaxMountBytes
	for _, m := range all {
		next := &protov1.Mount{Type: "bind", Source: clip.Text("mounts", m.GetHostPath()), Destination: clip.Text("mounts", m.GetContainerPath()),
			ReadOnly: proto.Bool(m.GetReadonly())}
		if i := m.GetImage().GetImage(); i != "" {
			next.Type, next.Source = "image", clip.Text("mounts", i)
		}
		if left -= proto.Size(next); left < 0 || !clip.Room("mounts", len(out), describe.MaxMounts) {
			clip.Shortened("mounts")
			return out
		}
		out = append(out, next)
	}
	return out
}

// limits: the CRI's 0 stands for not told.
func limits(clip *describe.Clip, r *cri.LinuxContainerResources) *protov1.Limits {
	if r == nil {
		return nil
	}
	l := &protov1.Limits{
		CpuQuotaUs: limit(r.GetCpuQuota()), Cpuset: clip.Text("limits", r.GetCpusetCpus()), MemoryBytes: limit(r.GetMemoryLimitInBytes()),
	}
	if n := r.GetCpuPeriod(); n > 0 {
		l.CpuPeriodUs = proto.Int64(n)
	}
	if n := r.GetCpuShares(); n > 0 {
		l.CpuShares = proto.Int64(n)
	}
	// The CRI's is memory and swap together.
	if all, mem := r.GetMemorySwapLimitInBytes(), r.GetMemoryLimitInBytes(); mem > 0 && all >= mem {
		l.SwapBytes = proto.Int64(all - mem)
	}
	return l
}

func limit(n int64) *int64 {
	if n <= 0 {
		n = -1
	}
	return &n
}
