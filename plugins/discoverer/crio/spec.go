package main

import (
	"encoding/json"
	"path/filepath"
	"syscall"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/oci"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// readSpec completes a description with what the OCI specification tells, and returns
// the specification's annotations, in which runtimes keep what they know.
func (d *describer) readSpec(clip *describe.Clip, c *protov1.Container, raw json.RawMessage) map[string]string {
	if len(raw) == 0 {
		return nil // a runtime may tell none
	}
	spec, err := oci.DecodeBytes(raw)
	if err != nil {
		d.unread.Add(1)
	}
	if spec == nil {
		return nil
	}
	told := &protov1.Container{Runtime: c.Runtime}
	if err == nil {
		oci.Describe(told, clip, spec)
	} else {
		oci.DescribePart(told, clip, spec)
	}
	c.Args, c.Env, c.Security = told.Args, told.Env, told.Security
	if told.Hostname != "" {
		c.Hostname = told.Hostname
	}
	// Of the limits the status is newer. Mounts, annotations and the network are told
	// by the status and the sandbox as they were asked for, without the runtime's own.
	if status := c.Limits; told.Limits != nil {
		c.Limits = told.Limits
		if status != nil {
			put(c.Limits.ProtoReflect(), status.ProtoReflect())
		}
	}
	c.CgroupPath, c.CgroupId = d.cgroup(told.CgroupPath)
	return spec.Annotations
}

// cgroup gives the path of a container on the default hierarchy and the cgroup's id, if
// it is there: it may not be made yet, and a runtime that itself runs in a container has
// its cgroups elsewhere.
func (d *describer) cgroup(path string) (string, uint64) {
	if path == "" || d.root == "" {
		return "", 0
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(d.root, path), &st); err != nil {
		return "", 0
	}
	return path, st.Ino
}
