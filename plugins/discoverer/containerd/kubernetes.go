package main

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/oci"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Keys by which containerd's CRI plugin and the kubelet keep what they know: annotations
// of the specification, labels and extensions of the container.
const (
	criContainerType = "io.kubernetes.cri.container-type"

	labelKind          = "io.cri-containerd.kind"
	labelPodUID        = "io.kubernetes.pod.uid"
	labelContainerName = "io.kubernetes.container.name"

	containerExtension = "io.cri-containerd.container.metadata"
	sandboxExtension   = "io.cri-containerd.sandbox.metadata"

	annotationPorts   = "io.kubernetes.container.ports"
	annotationIngress = "kubernetes.io/ingress-bandwidth"
	annotationEgress  = "kubernetes.io/egress-bandwidth"
)

const (
	// sandboxName is what the container of a sandbox itself is called: it has no name in
	// the pod's specification, and Kubernetes has called it so since it had one.
	sandboxName = "POD"
	typeSandbox = "sandbox"
	maxIPs      = 16
)

// criMetadata is what is read of the extension of a container or a sandbox. Both are
// written alike.
type criMetadata struct {
	Metadata struct {
		SandboxID     string
		ImageRef      string // the image's id
		IP            string
		AdditionalIPs []string
		CNIResult     struct {
			Interfaces map[string]struct {
				IPConfigs []struct{ IP, Gateway string }
				Mac       string
			}
		}
		Config struct {
			Metadata struct {
				Name    string `json:"name"`
				UID     string `json:"uid"`
				Attempt uint32 `json:"attempt"`
			} `json:"metadata"`
			Hostname    string            `json:"hostname"`
			Annotations map[string]string `json:"annotations"`
			Image       struct {
				Asked string `json:"user_specified_image"`
			} `json:"image"`
			Ports []struct {
				Protocol      int    `json:"protocol"`
				ContainerPort uint32 `json:"container_port"`
				HostPort      uint32 `json:"host_port"`
				HostIP        string `json:"host_ip"`
			} `json:"port_mappings"`
			Linux struct {
				Security struct {
					Privileged bool `json:"privileged"`
				} `json:"security_context"`
			} `json:"linux"`
		}
	}
}

// readCRI completes the description of a container of Kubernetes, which has its labels
// and the annotations of its specification already.
func (d *describer) readCRI(clip *describe.Clip, c *protov1.Container, extensions map[string]*anypb.Any) {
	kind := cmp.Or(c.Annotations[criContainerType], c.Labels[labelKind])
	if kind == "" {
		return
	}
	extension := containerExtension
	if kind == typeSandbox {
		extension = sandboxExtension
	}
	var m criMetadata
	if raw := extensions[extension].GetValue(); len(raw) > 0 && !decode(raw, &m) {
		d.unread.Add(1)
	}
	in := &m.Metadata
	known := oci.ReadKnown(c.Annotations)
	c.PodUid = clip.Text("pod_uid", cmp.Or(c.Labels[labelPodUID], known.PodUID))
	c.SandboxId = clip.Text("sandbox_id", cmp.Or(known.SandboxID, in.SandboxID, c.SandboxId))
	c.RestartCount = proto.Uint32(in.Config.Metadata.Attempt)
	if c.Security != nil {
		c.Security.Privileged = proto.Bool(in.Config.Linux.Security.Privileged)
	}
	if asked := cmp.Or(in.Config.Image.Asked, known.Image); asked != "" {
		c.Image = parseImage(clip.Text("image", asked))
	}
	if id, ok := describe.ImageID(in.ImageRef); ok && c.Image != nil {
		c.Image.Id = id
	}
	all := maps.Clone(in.Config.Annotations)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, c.Annotations)
	c.Annotations = all
	if kind == typeSandbox {
		readSandbox(clip, c, &m)
		return
	}
	// Whether it is an init container is for Kubernetes to tell.
	c.Name = clip.Text("name", cmp.Or(c.Labels[labelContainerName], known.KubernetesName, in.Config.Metadata.Name))
	c.KubernetesName = c.Name
	// It is in the network namespace of its sandbox.
	if c.NetworkMode != "host" && c.SandboxId != "" {
		c.NetworkMode = "container:" + c.SandboxId
	}
	c.Ports = specifiedPorts(clip, in.Config.Annotations[annotationPorts])
}

// readSandbox completes the description of a pod's own container.
func readSandbox(clip *describe.Clip, c *protov1.Container, m *criMetadata) {
	in := &m.Metadata
	c.Name, c.KubernetesName, c.Type = sandboxName, sandboxName, typeSandbox
	c.PodUid = cmp.Or(c.PodUid, clip.Text("pod_uid", in.Config.Metadata.UID))
	c.Hostname = cmp.Or(c.Hostname, clip.Text("hostname", in.Config.Hostname))
	c.Networks = networks(clip, m)
	for _, p := range in.Config.Ports {
		if !clip.Room("ports", len(c.Ports), describe.MaxPorts) {
			break
		}
		c.Ports = append(c.Ports, &protov1.Port{
			Protocol: protocolOf(p.Protocol), ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: clip.Text("ports", p.HostIP),
		})
	}
	ingress, egress := bits(in.Config.Annotations[annotationIngress]), bits(in.Config.Annotations[annotationEgress])
	if ingress == nil && egress == nil {
		return
	}
	if c.Limits == nil {
		c.Limits = &protov1.Limits{}
	}
	if c.Limits.Network == nil {
		c.Limits.Network = &protov1.NetworkLimit{}
	}
	c.Limits.Network.IngressBitsPerSecond, c.Limits.Network.EgressBitsPerSecond = ingress, egress
}

// networks are the interfaces that the CNI plugins made, but for the ends of them that
// stay on the host, which have no address, and the loopback.
func networks(clip *describe.Clip, m *criMetadata) []*protov1.Network {
	in := &m.Metadata
	var out []*protov1.Network
	for _, name := range slices.Sorted(maps.Keys(in.CNIResult.Interfaces)) {
		i := in.CNIResult.Interfaces[name]
		if name == "lo" || len(i.IPConfigs) == 0 {
			continue
		}
		if !clip.Room("networks", len(out), describe.MaxNetworks) {
			return out
		}
		n := &protov1.Network{Name: clip.Text("networks", name), InterfaceMac: clip.Text("networks", i.Mac)}
		for _, ip := range i.IPConfigs {
			n.Ips = addIP(n.Ips, ip.IP)
			if gateway, err := netip.ParseAddr(ip.Gateway); err == nil && n.Gateway == "" {
				n.Gateway = gateway.String()
			}
		}
		out = append(out, n)
	}
	if len(out) > 0 || in.IP == "" {
		return out
	}
	n := &protov1.Network{Ips: addIP(nil, in.IP)}
	for _, ip := range in.AdditionalIPs {
		n.Ips = addIP(n.Ips, ip)
	}
	return []*protov1.Network{n}
}

func addIP(ips []string, text string) []string {
	ip, err := netip.ParseAddr(text)
	if err != nil || len(ips) >= maxIPs {
		return ips
	}
	return append(ips, ip.Unmap().String())
}

// protocolOf is a protocol of the CRI's.
func protocolOf(n int) string {
	switch n {
	case 0:
		return "tcp"
	case 1:
		return "udp"
	case 2:
		return "sctp"
	}
	return strconv.Itoa(n)
}

// specifiedPorts are those of a container's specification, as a kubelet annotates them.
func specifiedPorts(clip *describe.Clip, text string) []*protov1.Port {
	var all []struct {
		ContainerPort uint16 `json:"containerPort"`
		HostPort      uint16 `json:"hostPort"`
		HostIP        string `json:"hostIP"`
		Protocol      string `json:"protocol"`
	}
	if text == "" || !decode([]byte(text), &all) {
		return nil // anybody may annotate a container
	}
	var out []*protov1.Port
	for _, p := range all {
		if !clip.Room("ports", len(out), describe.MaxPorts) {
			break
		}
		out = append(out, &protov1.Port{
			Protocol: clip.Text("ports", strings.ToLower(p.Protocol)), ContainerPort: uint32(p.ContainerPort), HostPort: uint32(p.HostPort),
			HostIp: clip.Text("ports", p.HostIP),
		})
	}
	return out
}

// bits reads a bandwidth as Kubernetes writes quantities: 10M, 1Gi, 5e8. nil: it is none.
func bits(quantity string) *int64 {
	if quantity == "" || len(quantity) > 32 {
		return nil
	}
	number, unit := quantity, 1.0
	for _, s := range []struct {
		suffix string
		unit   float64
	}{
		{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}, {"Pi", 1 << 50}, {"Ei", 1 << 60},
		{"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"P", 1e15}, {"E", 1e18}, {"m", 1e-3},
	} {
		if n, ok := strings.CutSuffix(quantity, s.suffix); ok {
			number, unit = n, s.unit
			break
		}
	}
	if strings.Trim(number, "0123456789.eE+-") != "" { // no hexadecimal, no infinity
		return nil
	}
	n, err := strconv.ParseFloat(number, 64)
	if n *= unit; err != nil || n < 0 || n >= math.MaxInt64 {
		return nil
	}
	return proto.Int64(int64(n))
}
