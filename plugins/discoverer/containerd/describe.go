package main

import (
	"strings"
	"sync/atomic"

	"google.golang.org/protobuf/types/known/anypb"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const runtimeName = "containerd"

// Labels of nerdctl's.
const (
	labelName  = "nerdctl/name"
	labelPorts = "nerdctl/ports"
)

// describer turns containerd's words into the contract's. It does no I/O and is safe for
// concurrent use.
type describer struct {
	labels *labelRules
	env    bool
	unread atomic.Uint64 // JSON that could not be read whole
}

func newDescriber(c Config) *describer { return &describer{labels: newLabelRules(c), env: c.Env} }

// container describes what the store has of a container.
func (d *describer) container(namespace string, in *containersapi.Container) *protov1.Container {
	clip := &clip{}
	k := key{namespace, cut(in.GetID(), maxName)}
	c := &protov1.Container{
		Id: k.id, Scope: scopeOf(k), Name: fallbackName(k, true), Image: parseImage(clip.text("image", in.GetImage())), Runtime: runtimeName,
		CreatedUnixNano: nano(in.GetCreatedAt()), SandboxId: clip.text("sandbox_id", in.GetSandbox()),
	}
	labels := in.GetLabels()
	s := d.spec(clip, c, in.GetSpec())
	d.readCRI(clip, c, s, labels, in.GetExtensions())
	if name := labels[labelName]; name != "" {
		c.Name = clip.text("name", name)
		c.Ports = nerdctlPorts(clip, labels[labelPorts])
	}
	c.Labels = d.chosen(clip, "labels", labels)
	c.Annotations = d.chosen(clip, "annotations", s.Annotations)
	c.Truncated = clip.fields
	return c
}

// spec reads the specification. Where it can't be read whole, nothing is said that might
// be wrong for it.
func (d *describer) spec(clip *clip, c *protov1.Container, raw *anypb.Any) *spec {
	s := &spec{}
	if !strings.Contains(raw.GetTypeUrl(), "opencontainers/runtime-spec/") || len(raw.GetValue()) == 0 {
		return s
	}
	if decode(raw.GetValue(), s) {
		d.readSpec(clip, c, s)
		return s
	}
	d.unread.Add(1)
	c.Args, c.CgroupPath = clip.words("args", s.Process.Args), cgroupPath(s.Linux.CgroupsPath)
	return s
}

// chosen are the labels or annotations that the configuration lets through; they share
// the room.
func (d *describer) chosen(clip *clip, field string, all map[string]string) map[string]string {
	if clip.labels == 0 {
		clip.labels = d.labels.all
	}
	kept, left, shortened := d.labels.apply(all, clip.labels)
	clip.labels = max(left, 1) // 0 stands for the beginning
	if shortened {
		clip.shortened(field)
	}
	return kept
}

// nerdctlPorts are those that nerdctl publishes.
func nerdctlPorts(clip *clip, text string) []*protov1.Port {
	var all []struct {
		HostPort, ContainerPort uint16
		Protocol, HostIP        string
	}
	if text == "" || !decode([]byte(text), &all) {
		return nil
	}
	var out []*protov1.Port
	for _, p := range all {
		if !clip.room("ports", len(out), maxPorts) {
			break
		}
		out = append(out, &protov1.Port{
			Protocol: clip.text("ports", p.Protocol), ContainerPort: uint32(p.ContainerPort), HostPort: uint32(p.HostPort), HostIp: clip.text("ports", p.HostIP),
		})
	}
	return out
}

// scopeOf says where a container's id is unique: 64 hex digits are so by themselves.
func scopeOf(k key) string {
	if isHex64(k.id) {
		return ""
	}
	return "containerd:" + k.namespace
}

func refOf(k key) *protov1.ContainerRef { return &protov1.ContainerRef{Id: k.id, Scope: scopeOf(k)} }

func isHex64(id string) bool {
	if len(id) != 64 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// fallbackName is what a container is called whose labels give it no name: by its id,
// which a user of ctr has chosen. One of 64 hex digits may have a name, so it has none
// until its labels are known; Docker's have theirs in Docker's engine.
func fallbackName(k key, known bool) string {
	if isDocker(k.namespace) || isHex64(k.id) && !known {
		return ""
	}
	return k.id
}
