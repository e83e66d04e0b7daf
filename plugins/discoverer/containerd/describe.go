package main

import (
	"encoding/json"
	"strings"
	"sync/atomic"

	"google.golang.org/protobuf/types/known/anypb"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/oci"
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
	filter *describe.Filter
	unread atomic.Uint64 // JSON that could not be read whole
}

func newDescriber(c Config) *describer { return &describer{filter: describe.NewFilter(c.FilterConfig)} }

// container describes what the store has of a container.
func (d *describer) container(namespace string, in *containersapi.Container) *protov1.Container {
	clip := &describe.Clip{}
	k := key{namespace, describe.Cut(in.GetID(), describe.MaxName)}
	c := &protov1.Container{
		Id: k.id, Scope: scopeOf(k), Name: fallbackName(k, true), Image: parseImage(clip.Text("image", in.GetImage())), Runtime: runtimeName,
		CreatedUnixNano: nano(in.GetCreatedAt()), SandboxId: clip.Text("sandbox_id", in.GetSandbox()), Labels: in.GetLabels(),
	}
	d.readSpec(clip, c, in.GetSpec())
	d.readCRI(clip, c, in.GetExtensions())
	if name := in.GetLabels()[labelName]; name != "" {
		c.Name = clip.Text("name", name)
		c.Ports = nerdctlPorts(clip, in.GetLabels()[labelPorts])
	}
	c.Truncated = clip.Fields()
	d.filter.Apply(c)
	return c
}

// readSpec reads the specification. Where it can't be read whole, nothing is said that
// might be wrong for it.
func (d *describer) readSpec(clip *describe.Clip, c *protov1.Container, raw *anypb.Any) {
	if !strings.Contains(raw.GetTypeUrl(), "opencontainers/runtime-spec/") || len(raw.GetValue()) == 0 {
		return
	}
	if len(raw.GetValue()) > oci.MaxSpec {
		d.unread.Add(1)
		return
	}
	s, err := oci.DecodeBytes(raw.GetValue())
	switch {
	case err == nil:
		oci.Describe(c, clip, s)
	case s != nil:
		d.unread.Add(1)
		oci.DescribePart(c, clip, s)
	default:
		d.unread.Add(1)
	}
}

// nerdctlPorts are those that nerdctl publishes.
func nerdctlPorts(clip *describe.Clip, text string) []*protov1.Port {
	var all []struct {
		HostPort, ContainerPort uint16
		Protocol, HostIP        string
	}
	if text == "" || !decode([]byte(text), &all) {
		return nil
	}
	var out []*protov1.Port
	for _, p := range all {
		if !clip.Room("ports", len(out), describe.MaxPorts) {
			break
		}
		out = append(out, &protov1.Port{
			Protocol: clip.Text("ports", p.Protocol), ContainerPort: uint32(p.ContainerPort), HostPort: uint32(p.HostPort), HostIp: clip.Text("ports", p.HostIP),
		})
	}
	return out
}

// maxJSON bounds what is decoded of metadata; labels that large can't be stored.
const maxJSON = 1 << 20

// decode reads as much of a JSON value as can be read. It tells whether that was all:
// what is of another type than it should be is left out.
func decode(raw []byte, into any) bool {
	return len(raw) <= maxJSON && json.Unmarshal(raw, into) == nil
}

// scopeOf says where a container's id is unique: 64 hex digits are so by themselves.
func scopeOf(k key) string {
	if describe.IsHex64(k.id) {
		return ""
	}
	return "containerd:" + k.namespace
}

func refOf(k key) *protov1.ContainerRef { return &protov1.ContainerRef{Id: k.id, Scope: scopeOf(k)} }

// fallbackName is what a container is called whose labels give it no name: by its id,
// which a user of ctr has chosen. One of 64 hex digits may have a name, so it has none
// until its labels are known; Docker's have theirs in Docker's engine.
func fallbackName(k key, known bool) string {
	if isDocker(k.namespace) || describe.IsHex64(k.id) && !known {
		return ""
	}
	return k.id
}
