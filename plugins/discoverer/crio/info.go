package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// maxInfo is how much JSON about one container is read: an annotation of the largest
// size that Kubernetes takes is in it three times.
const maxInfo = 4 << 20

// info is what runtimes add to a verbose status: the OCI specification, the process,
// and some of what they were asked for. CRI-O and containerd write it alike.
type info struct {
	SandboxID  string          `json:"sandboxID"`
	PID        int64           `json:"pid"`
	Image      string          `json:"image"` // of a sandbox
	Privileged *bool           `json:"privileged"`
	Spec       json.RawMessage `json:"runtimeSpec"`
	Config     struct {
		Hostname string        `json:"hostname"`
		Ports    []portMapping `json:"port_mappings"`
		Image    struct {
			Image string `json:"image"`
			User  string `json:"user_specified_image"`
		} `json:"image"`
		Linux struct {
			Security struct {
				Privileged bool `json:"privileged"`
			} `json:"security_context"`
		} `json:"linux"`
	} `json:"config"`
}

// portMapping is a port of a sandbox, as containerd writes it.
type portMapping struct {
	Protocol      cri.Protocol `json:"protocol"`
	ContainerPort uint32       `json:"container_port"`
	HostPort      uint32       `json:"host_port"`
	HostIP        string       `json:"host_ip"`
}

// readInfo reads as much of it as can be read.
func (d *describer) readInfo(all map[string]string) *info {
	in := &info{}
	text := all["info"]
	if text == "" {
		return in // a runtime may tell none
	}
	var mistyped *json.UnmarshalTypeError
	if len(text) > maxInfo {
		d.unread.Add(1)
	} else if err := json.Unmarshal([]byte(text), in); err != nil {
		d.unread.Add(1)
		if !errors.As(err, &mistyped) {
			return &info{}
		}
	}
	return in
}

// whole describes a container from its verbose status.
func (d *describer) whole(r *cri.ContainerStatusResponse) *protov1.Container {
	clip := &describe.Clip{}
	status, in := r.GetStatus(), d.readInfo(r.GetInfo())
	c := d.status(clip, status)
	c.SandboxId = clip.Text("sandbox_id", in.SandboxID)
	annotations := d.readSpec(clip, c, in.Spec)
	d.complete(c, in)
	if asked := cmp.Or(annotations[crioImage], in.Config.Image.User); asked != "" {
		// The status has a name of the image; this is the one that was asked for.
		c.Image = image(&cri.ImageSpec{Image: asked}, status.GetImageRef(), status.GetImageId())
	}
	return d.chosen(clip, c)
}

// wholeSandbox describes a sandbox and its own container from its verbose status.
func (d *describer) wholeSandbox(r *cri.PodSandboxStatusResponse) (*protov1.Container, *sandbox) {
	clip := &describe.Clip{}
	status, in := r.GetStatus(), d.readInfo(r.GetInfo())
	c, s := d.sandboxContainer(status), d.sandbox(status)
	annotations := d.readSpec(clip, c, in.Spec)
	d.complete(c, in)
	if name := cmp.Or(annotations[crioImageName], in.Image); name != "" {
		c.Image = describe.ParseImage(name)
	}
	if c.Hostname == "" {
		c.Hostname = clip.Text("hostname", in.Config.Hostname)
	}
	c.Ports = mappedPorts(clip, in.Config.Ports)
	d.crioSandbox(clip, c, s, annotations)
	return d.chosen(clip, c), s
}

// complete adds what is not in the specification.
func (d *describer) complete(c *protov1.Container, in *info) {
	if c.State != protov1.Container_STATE_EXITED {
		c.Pid = clampU32(in.PID)
	}
	if in.Privileged == nil && !in.Config.Linux.Security.Privileged {
		return
	}
	if c.Security == nil {
		c.Security = &protov1.Security{}
	}
	c.Security.Privileged = proto.Bool(in.Config.Linux.Security.Privileged || in.Privileged != nil && *in.Privileged)
}

// Annotations by which CRI-O keeps what it knows in the OCI specification.
const (
	crioType        = "io.kubernetes.cri-o.ContainerType"
	crioMetadata    = "io.kubernetes.cri-o.Metadata"
	crioImage       = "io.kubernetes.cri-o.Image"     // as it was asked for
	crioImageName   = "io.kubernetes.cri-o.ImageName" // of a sandbox too
	crioImageID     = "io.kubernetes.cri-o.ImageRef"
	crioHostname    = "io.kubernetes.cri-o.HostName"
	crioPorts       = "io.kubernetes.cri-o.PortMappings"
	crioHostNetwork = "io.kubernetes.cri-o.HostNetwork"
	crioCNI         = "io.kubernetes.cri-o.CNIResult"
)

// metadata names a container or a sandbox.
type metadata struct {
	Name      string `json:"name"`
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Attempt   uint32 `json:"attempt"`
}

// inspected describes what CRI-O has made, or is about to make, and does not list yet.
func (d *describer) inspected(id string, in *inspected) (*protov1.Container, *sandbox) {
	clip := &describe.Clip{}
	var m metadata
	if err := json.Unmarshal([]byte(in.Spec[crioMetadata]), &m); err != nil {
		d.unread.Add(1) // its labels name it
	}
	if in.Spec[crioType] == typeSandbox {
		return d.inspectedSandbox(clip, id, in, m)
	}
	c := d.base(clip, id, m.Name, in.Labels, in.Annotations)
	c.SandboxId = clip.Text("sandbox_id", in.Sandbox)
	c.RestartCount, c.CreatedUnixNano = proto.Uint32(m.Attempt), time64(in.Created)
	c.Image = image(&cri.ImageSpec{Image: cmp.Or(in.Spec[crioImage], in.Image)}, in.ImageRef, in.Spec[crioImageID])
	return d.chosen(clip, c), nil
}

func (d *describer) inspectedSandbox(clip *describe.Clip, id string, in *inspected, m metadata) (*protov1.Container, *sandbox) {
	of := &cri.PodSandboxMetadata{Name: m.Name, Uid: m.UID, Namespace: m.Namespace, Attempt: m.Attempt}
	c := d.ownContainer(id, of, cri.PodSandboxState_SANDBOX_READY, in.Created, in.Labels, in.Annotations)
	c.State, c.StartedUnixNano = protov1.Container_STATE_UNSPECIFIED, 0
	c.Image = describe.ParseImage(in.Spec[crioImageName])
	s := d.pod(id, of, cri.PodSandboxState_SANDBOX_READY, in.Created, in.Labels, in.Annotations)
	s.stage = early
	s.pod.HostNetwork = proto.Bool(in.Spec[crioHostNetwork] == "true")
	d.crioSandbox(clip, c, s, in.Spec)
	if len(s.pod.Ips) == 0 {
		for _, ip := range in.IPs[:min(len(in.IPs), maxIPs)] {
			s.pod.Ips = append(s.pod.Ips, describe.Cut(ip, describe.MaxName))
		}
	}
	return d.chosen(clip, c), s
}

// crioSandbox adds what CRI-O keeps of a sandbox in annotations; another runtime has
// none of them.
func (d *describer) crioSandbox(clip *describe.Clip, c *protov1.Container, s *sandbox, annotations map[string]string) {
	if h := annotations[crioHostname]; h != "" {
		c.Hostname = clip.Text("hostname", h)
	}
	if p := annotations[crioPorts]; p != "" {
		c.Ports = d.crioMappedPorts(clip, p)
	}
	if s.pod.GetHostNetwork() {
		return
	}
	if r := annotations[crioCNI]; r != "" {
		if n := d.readNetwork(r); n != nil {
			s.network = n
			c.Networks = []*protov1.Network{proto.CloneOf(n)}
			if len(s.pod.Ips) == 0 {
				s.pod.Ips = n.Ips
			}
		}
	}
}

// readNetwork reads the result of the CNI plugins.
func (d *describer) readNetwork(text string) *protov1.Network {
	var r struct {
		Interfaces []struct {
			MAC     string `json:"mac"`
			Sandbox string `json:"sandbox"`
		} `json:"interfaces"`
		IPs []struct {
			Address string `json:"address"`
			Gateway string `json:"gateway"`
		} `json:"ips"`
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		d.unread.Add(1)
		return nil
	}
	n := &protov1.Network{}
	for _, i := range r.Interfaces {
		if i.Sandbox != "" { // the end inside
			n.InterfaceMac = describe.Cut(i.MAC, describe.MaxName)
			break
		}
	}
	for _, ip := range r.IPs[:min(len(r.IPs), maxIPs)] {
		p, err := netip.ParsePrefix(ip.Address)
		if err != nil {
			continue
		}
		n.Ips = append(n.Ips, p.Addr().String())
		if n.Gateway == "" {
			n.Gateway = describe.Cut(ip.Gateway, describe.MaxName)
		}
	}
	if len(n.Ips) == 0 {
		return nil
	}
	return n
}

// mappedPorts are those of a sandbox that containerd was asked to map.
func mappedPorts(clip *describe.Clip, all []portMapping) []*protov1.Port {
	var out []*protov1.Port
	for _, p := range all {
		if !clip.Room("ports", len(out), describe.MaxPorts) {
			break
		}
		out = append(out, &protov1.Port{Protocol: strings.ToLower(p.Protocol.String()), ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: clip.Text("ports", p.HostIP)})
	}
	return out
}

// crioMappedPorts are those of a sandbox that CRI-O was asked to map.
func (d *describer) crioMappedPorts(clip *describe.Clip, text string) []*protov1.Port {
	var all []struct {
		Protocol      string
		ContainerPort int64
		HostPort      int64
		HostIP        string
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		d.unread.Add(1)
		return nil
	}
	var out []*protov1.Port
	for _, p := range all {
		if !clip.Room("ports", len(out), describe.MaxPorts) {
			break
		}
		out = append(out, &protov1.Port{Protocol: clip.Text("ports", strings.ToLower(p.Protocol)), ContainerPort: clampU32(p.ContainerPort), HostPort: clampU32(p.HostPort), HostIp: clip.Text("ports", p.HostIP)})
	}
	return out
}

// specifiedPorts are those of a container's specification, as a kubelet annotates them.
func (d *describer) specifiedPorts(clip *describe.Clip, text string) []*protov1.Port {
	var all []struct {
		ContainerPort int64  `json:"containerPort"`
		HostPort      int64  `json:"hostPort"`
		HostIP        string `json:"hostIP"`
		Protocol      string `json:"protocol"`
	}
	if len(text) > maxInfo || json.Unmarshal([]byte(text), &all) != nil {
		return nil // anybody may annotate a container
	}
	var out []*protov1.Port
	for _, p := range all {
		if !clip.Room("ports", len(out), describe.MaxPorts) {
			break
		}
		out = append(out, &protov1.Port{Protocol: clip.Text("ports", strings.ToLower(p.Protocol)), ContainerPort: clampU32(p.ContainerPort), HostPort: clampU32(p.HostPort), HostIp: clip.Text("ports", p.HostIP)})
	}
	return out
}

func clampU32(n int64) uint32 { return uint32(min(max(n, 0), 1<<32-1)) }
