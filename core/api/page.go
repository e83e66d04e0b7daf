package api

import (
	"strings"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// maxPage is the largest page of containers, in bytes.
const maxPage = wire.MaxBatch

// pages sends containers in pages of at most maxPage.
func pages(containers []*protov1.ContainerView, send func(*protov1.ListContainersResponse) error) error {
	page := &protov1.ListContainersResponse{}
	size := 0
	for _, c := range containers {
		c, n := shown(c)
		n += 8 // the field's tag and length
		if len(page.Containers) > 0 && size+n > maxPage {
			if err := send(page); err != nil {
				return err
			}
			page, size = &protov1.ListContainersResponse{}, 0
		}
		page.Containers = append(page.Containers, c)
		size += n
	}
	if len(page.Containers) == 0 {
		return nil
	}
	return send(page)
}

// shown is a container as it may leave the daemon, and its size in bytes: without
// the values of environment variables, and never near the size of a page. What was
// left out is named in the container's truncated.
func shown(c *protov1.ContainerView) (*protov1.ContainerView, int) {
	n := proto.Size(c)
	if n <= wire.MaxString && len(c.GetContainer().GetEnv()) == 0 {
		return c, n
	}
	c = proto.Clone(c).(*protov1.ContainerView)
	for i, v := range c.GetContainer().GetEnv() {
		if name, _, ok := strings.Cut(v, "="); ok {
			c.Container.Env[i] = name + "=[redacted]"
		}
	}
	if n = proto.Size(c); n <= wire.MaxString {
		return c, n
	}
	if c.Container != nil {
		change := &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: c.Container}}
		if _, ok := wire.Shorten(change); !ok {
			// Nothing that names the container is that long in truth.
			c.Container = &protov1.Container{Id: head(c.Container.Id), Name: head(c.Container.Name), Truncated: []string{"container"}}
		}
	}
	if c.Pod != nil {
		change := &protov1.InventoryChange{Change: &protov1.InventoryChange_Pod{Pod: c.Pod}}
		if _, ok := wire.Shorten(change); !ok {
			c.Pod = nil
			truncated(c, "pod")
		}
	}
	if proto.Size(c.Mesh) > wire.MaxChange {
		c.Mesh = nil
		truncated(c, "mesh")
	}
	if most := 4096; len(c.CgroupIds) > most {
		c.CgroupIds = c.CgroupIds[:most]
		truncated(c, "cgroup_ids")
	}
	return c, proto.Size(c)
}

// head is at most 256 bytes of s.
func head(s string) string { return s[:min(len(s), 256)] }

func truncated(c *protov1.ContainerView, what string) {
	if c.Container != nil {
		c.Container.Truncated = append(c.Container.Truncated, what)
	}
}
