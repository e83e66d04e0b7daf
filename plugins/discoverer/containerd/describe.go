package main

import (
	"encoding/json"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const runtimeName = "containerd"

// describer turns containerd's words into the contract's. It does no I/O and is safe for
// concurrent use.
type describer struct{ labels *labelRules }

func newDescriber(c Config) *describer { return &describer{labels: newLabelRules(c)} }

func (d *describer) shortened() uint64 { return d.labels.shortened.Swap(0) }

func (d *describer) container(namespace string, in *containersapi.Container) *protov1.Container {
	k := key{namespace, cut(in.GetID(), maxName)}
	c := &protov1.Container{
		Id: k.id, Scope: scopeOf(k), Name: fallbackName(k, true), Image: parseImage(in.GetImage()), Runtime: runtimeName,
		CreatedUnixNano: nano(in.GetCreatedAt()),
	}
	c.Labels, _, _ = d.labels.apply(in.GetLabels(), 32<<10)
	var spec struct {
		Linux struct{ CgroupsPath string }
	}
	_ = json.Unmarshal(in.GetSpec().GetValue(), &spec)
	c.CgroupPath = spec.Linux.CgroupsPath
	return c
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

// fallbackName is what a container is called whose labels give it no name: by its id, which a
// user of ctr has chosen. One of 64 hex digits may have a name, so it has none until its
// labels are known; Docker's have theirs in Docker's engine.
func fallbackName(k key, known bool) string {
	if isDocker(k.namespace) || isHex64(k.id) && !known {
		return ""
	}
	return k.id
}
