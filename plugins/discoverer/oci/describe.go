package main

import (
	"cmp"
	"errors"
	"io/fs"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/oci"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const bareRuntime = "oci"

// describer turns a runtime's state into the contract's words. One goroutine uses it.
type describer struct {
	filter *describe.Filter
	proc   proc

	// Of bundles: those that could not be read, since nobody last asked.
	noBundle int
	example  string
}

// made describes a container by its state, but for what changes without the state's
// being written. An error comes with a description of what could be read.
func (d *describer) made(r *root, id string, s *state) (*protov1.Container, error) {
	clip := &describe.Clip{}
	c := d.least(r, id)
	c.CreatedUnixNano = s.created
	bundle, err := d.bundle(s)
	spec := s.spec
	if bundle != nil && (err == nil || !s.sure) {
		spec = bundle
	}
	known := oci.Known{}
	if spec != nil {
		known = oci.ReadKnown(spec.Annotations)
	}
	c.Runtime = cmp.Or(r.runtime, known.Runtime, bareRuntime)
	c.Name = ""
	switch {
	case bundle != nil && err == nil:
		oci.Describe(c, clip, bundle)
	case s.spec != nil && s.sure:
		oci.Describe(c, clip, s.spec)
		if !s.whole {
			c.Security.User = "" // runc does not keep it
		}
		if bundle != nil { // what is readable of it and not in the state
			part := *s.spec
			part.Process = bundle.Process
			oci.DescribePart(c, clip, &part)
		}
	case spec != nil:
		oci.DescribePart(c, clip, spec)
	}
	known.Describe(c, clip)
	if c.Name == "" && (c.Runtime == bareRuntime || !describe.IsHex64(id)) {
		// Where it is managed, and the id nobody's choice, the manager has a name.
		c.Name = id
	}
	c.CgroupPath = "" // the state's word counts
	c.Truncated = clip.Fields()
	d.filter.Apply(c)
	return c, err
}

// least is what a directory in a root tells of a container by its name.
func (d *describer) least(r *root, id string) *protov1.Container {
	ref := r.ref(id)
	c := &protov1.Container{Id: ref.Id, Scope: ref.Scope, Name: id, Runtime: cmp.Or(r.runtime, bareRuntime)}
	if r.runtime != "" && describe.IsHex64(id) {
		c.Name = ""
	}
	return c
}

// bundle is the specification of the bundle, where the state is not as good, with the
// limits as they now are. With an error it was read in part; nil: it can't be read.
func (d *describer) bundle(s *state) (*specs.Spec, error) {
	if s.whole || s.bundle == "" {
		return nil, nil
	}
	b, err := readBundle(s.bundle)
	if b == nil {
		if d.noBundle++; d.example == "" {
			d.example = s.bundle
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			err = nil // not shown to the plugin, or removed before the container
		}
		return nil, err
	}
	if s.limits != nil {
		if b.Linux == nil {
			b.Linux = &specs.Linux{}
		}
		b.Linux.Resources = s.limits
	}
	return b, err
}

// args completes a description, if need be, with what its process was started with.
// Until it has executed the container's program it is the runtime's.
func (d *describer) args(c *protov1.Container, pid uint32) {
	if d.proc == "" || len(c.Args) > 0 || !d.filter.Wants("args") {
		return
	}
	args := d.proc.args(pid)
	if len(args) == 2 && args[1] == "init" {
		return
	}
	clip := &describe.Clip{}
	c.Args = clip.Words("args", args)
	c.Truncated = append(c.Truncated, clip.Fields()...)
}
