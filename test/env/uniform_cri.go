package env

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criRow is a runtime that is driven by its CRI. Each container has a pod of its own.
type criRow struct {
	client     *CRI
	defaults   []string // capabilities
	discoverer func() (name, hcl string)
	runtimeDaemon

	mu   sync.Mutex
	pods map[string]*Pod // by the container's id; guarded by mu
}

// NewContainerdCRIRow is a containerd that is driven by its CRI, with a network for pods,
// for a suite.
func NewContainerdCRIRow(ctx context.Context, opts ...Option) (Runtime, error) {
	c, err := NewContainerd(ctx, append(opts, WithCRI(), WithBridge())...)
	if err != nil {
		return nil, err
	}
	return &criRow{
		client: c.CRI(), defaults: containerdCapabilities, discoverer: func() (string, string) { return containerdDiscoverer(c) },
		runtimeDaemon: runtimeDaemon{c.Kill, c.Start, c.Pause, c.Resume, c.Close}, pods: map[string]*Pod{},
	}, nil
}

// NewCRIORow is a CRI-O with a network for pods, for a suite.
func NewCRIORow(ctx context.Context) (Runtime, error) {
	c, err := NewCRIO(ctx, WithBridge())
	if err != nil {
		return nil, err
	}
	discoverer := func() (string, string) {
		return "crio", fmt.Sprintf("discoverer \"crio\" {\n  endpoint = \"unix://%s\"\n  env      = true\n}\n", c.Socket)
	}
	return &criRow{
		client: c.CRI(), defaults: crioCapabilities, discoverer: discoverer,
		runtimeDaemon: runtimeDaemon{c.Kill, c.Start, c.Pause, c.Resume, c.Close}, pods: map[string]*Pod{},
	}, nil
}

func (r *criRow) Discoverer() (name, hcl string) { return r.discoverer() }

func (r *criRow) RunShort(ctx context.Context, name string, labels map[string]string, args ...string) (string, error) {
	id, err := r.RunDetached(ctx, Spec{Name: name, Image: NoopImage, Labels: labels, Args: args})
	if err != nil {
		return "", err
	}
	if _, err := r.client.WaitExited(ctx, id); err != nil {
		return "", err
	}
	return id, r.Remove(ctx, id)
}

func (r *criRow) RunDetached(ctx context.Context, spec Spec) (string, error) {
	config := r.client.PodConfig(spec.Name)
	if spec.Hostname != "" {
		config = WithNetwork(config)
		config.Hostname = spec.Hostname
	}
	if spec.Port != 0 {
		config.PortMappings = []*cri.PortMapping{{
			Protocol: cri.Protocol_TCP, ContainerPort: int32(spec.Port), HostPort: int32(spec.Port), HostIp: "127.0.0.1",
		}}
	}
	pod, err := r.client.RunPod(ctx, config)
	if err != nil {
		return "", err
	}
	id, err := r.client.RunContainer(ctx, pod, spec.container(pod))
	if err != nil {
		return "", errors.Join(err, r.client.RemovePod(ctx, pod))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pods[id] = pod
	return id, nil
}

// container asks for what the CRI can express, in a pod.
func (spec Spec) container(pod *Pod) *cri.ContainerConfig {
	c := pod.ContainerConfig(spec.Name, spec.Image, spec.Args...)
	if spec.Entrypoint != "" {
		c.Command = []string{spec.Entrypoint}
	}
	for key, value := range spec.Labels {
		c.Labels[key] = value
	}
	for _, e := range spec.Env {
		key, value, _ := strings.Cut(e, "=")
		c.Envs = append(c.Envs, &cri.KeyValue{Key: key, Value: value})
	}
	if m := spec.Mount; m != nil {
		c.Mounts = []*cri.Mount{{HostPath: m.Source, ContainerPath: m.Destination, Readonly: true}}
	}
	c.Annotations = map[string]string{}
	if spec.Port != 0 { // as a kubelet tells it
		c.Annotations["io.kubernetes.container.ports"] = fmt.Sprintf(
			`[{"containerPort":%d,"hostPort":%d,"hostIP":"127.0.0.1","protocol":"TCP"}]`, spec.Port, spec.Port)
	}
	security := c.Linux.SecurityContext
	security.ReadonlyRootfs = spec.ReadOnlyRoot
	if uid, gid, ok := strings.Cut(spec.User, ":"); ok {
		u, _ := strconv.ParseInt(uid, 10, 64)
		g, _ := strconv.ParseInt(gid, 10, 64)
		security.RunAsUser, security.RunAsGroup = &cri.Int64Value{Value: u}, &cri.Int64Value{Value: g}
	}
	if spec.AddCap != "" {
		security.Capabilities = &cri.Capability{AddCapabilities: []string{spec.AddCap}, DropCapabilities: []string{spec.DropCap}}
	}
	if spec.MemoryBytes > 0 {
		c.Linux.Resources = &cri.LinuxContainerResources{
			MemoryLimitInBytes: spec.MemoryBytes, CpuQuota: spec.CPUQuota, CpuPeriod: spec.CPUPeriod, CpuShares: spec.CPUShares,
		}
	}
	return c
}

func (r *criRow) Exec(ctx context.Context, id string, args ...string) error {
	_, err := r.client.Exec(ctx, id, args...)
	return err
}

func (r *criRow) Stop(ctx context.Context, id string) error {
	return r.client.StopContainer(ctx, id, 0)
}

func (*criRow) Pause(context.Context, string) error   { return errors.ErrUnsupported }
func (*criRow) Unpause(context.Context, string) error { return errors.ErrUnsupported }

func (r *criRow) Remove(ctx context.Context, id string) error {
	if err := r.client.StopContainer(ctx, id, 0); err != nil {
		return err
	}
	if err := r.client.RemoveContainer(ctx, id); err != nil {
		return err
	}
	r.mu.Lock()
	pod := r.pods[id]
	delete(r.pods, id)
	r.mu.Unlock()
	if pod == nil {
		return nil
	}
	return r.client.RemovePod(ctx, pod)
}

func (r *criRow) Inspect(ctx context.Context, id string) (*protov1.Container, error) {
	told, err := r.client.Inspect(ctx, id)
	if err != nil {
		return nil, err
	}
	in := told.GetStatus()
	var info struct {
		SandboxID   string          `json:"sandboxID"`
		PID         uint32          `json:"pid"`
		RuntimeSpec json.RawMessage `json:"runtimeSpec"`
		Privileged  bool            `json:"privileged"` // by CRI-O
		Config      struct {        // by containerd
			Linux struct {
				Security struct {
					Privileged bool `json:"privileged"`
				} `json:"security_context"`
			} `json:"linux"`
		} `json:"config"`
	}
	if err := json.Unmarshal([]byte(told.GetInfo()["info"]), &info); err != nil {
		return nil, fmt.Errorf("read what the runtime tells of container %s: %w", id, err)
	}
	c := &protov1.Container{}
	if err := fromSpec(c, info.RuntimeSpec, r.defaults); err != nil {
		return nil, err
	}
	c.Id, c.Name, c.KubernetesName = in.GetId(), in.GetMetadata().GetName(), in.GetMetadata().GetName()
	c.Image = reference(in.GetImage().GetImage())
	if id := cmp.Or(in.GetImageId(), in.GetImageRef()); id != "" && !strings.Contains(id, "@") { // the older CRI has one of them
		c.Image.Id = "sha256:" + strings.TrimPrefix(id, "sha256:")
	}
	if _, digest, ok := strings.Cut(in.GetImageRef(), "@"); ok {
		c.Image.Digest = digest
	}
	c.Security.Privileged = proto.Bool(info.Privileged || info.Config.Linux.Security.Privileged)
	c.Labels, c.Annotations = in.GetLabels(), in.GetAnnotations()
	if c.NetworkMode == "" {
		c.NetworkMode = "container:" + info.SandboxID
	}
	c.PodUid, c.SandboxId = in.GetLabels()["io.kubernetes.pod.uid"], info.SandboxID
	c.RestartCount = proto.Uint32(in.GetMetadata().GetAttempt())
	c.CreatedUnixNano, c.StartedUnixNano = in.GetCreatedAt(), in.GetStartedAt()
	switch in.GetState() {
	case cri.ContainerState_CONTAINER_CREATED:
		c.State = protov1.Container_STATE_CREATED
	case cri.ContainerState_CONTAINER_RUNNING:
		c.State, c.Pid = protov1.Container_STATE_RUNNING, info.PID
	case cri.ContainerState_CONTAINER_EXITED:
		c.State, c.FinishedUnixNano = protov1.Container_STATE_EXITED, in.GetFinishedAt()
		c.ExitCode, c.OomKilled = proto.Int32(in.GetExitCode()), proto.Bool(in.GetReason() == "OOMKilled")
	}
	c.Mounts = nil // those that were asked for, without the runtime's own
	for _, m := range in.GetMounts() {
		c.Mounts = append(c.Mounts, &protov1.Mount{
			Type: "bind", Source: m.GetHostPath(), Destination: m.GetContainerPath(), ReadOnly: proto.Bool(m.GetReadonly()),
		})
	}
	r.mu.Lock()
	pod := r.pods[id]
	r.mu.Unlock()
	if pod == nil {
		return c, locate(c)
	}
	sandbox, err := r.client.InspectPod(ctx, pod)
	if err != nil {
		return nil, err
	}
	if ip := sandbox.GetStatus().GetNetwork().GetIp(); ip != "" && c.NetworkMode != "host" {
		c.Networks = []*protov1.Network{{Ips: []string{ip}}}
	}
	for _, p := range pod.Config.GetPortMappings() {
		c.Ports = append(c.Ports, &protov1.Port{
			Protocol: strings.ToLower(p.GetProtocol().String()), ContainerPort: uint32(p.GetContainerPort()),
			HostPort: uint32(p.GetHostPort()), HostIp: p.GetHostIp(),
		})
	}
	slices.SortFunc(c.Mounts, func(a, b *protov1.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	return c, locate(c)
}
