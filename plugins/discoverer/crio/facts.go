package main

import (
	"context"
	"path"
	"strings"
	"sync/atomic"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// maxFacts is how many cgroups wait to be asked for.
const maxFacts = 2048

// cgroupNews is that a cgroup came or went that is named like a container.
type cgroupNews struct {
	id      string // the container's
	by      string // the runtime that names cgroups so; "": several do
	removed bool
}

// concerns tells whether a cgroup may be one of a runtime's containers. On a host with
// several runtimes most are not.
func (n cgroupNews) concerns(runtime string) bool {
	switch runtime {
	case runtimeCRIO:
		return n.by == runtime
	case runtimeContainerd:
		return n.by == runtime || n.by == ""
	}
	return true
}

// facts are the cgroups that come and go on the host. A runtime may tell late of a
// container, or never; its cgroup is there before its first process.
type facts struct {
	news chan cgroupNews
	lost atomic.Uint64 // dropped, here or by the daemon
}

// follow reads the host's facts until ctx is done.
func (f *facts) follow(ctx context.Context, host discover.Host) {
	from := host.Facts(&protov1.Subscribe{Cgroups: true})
	var missed uint64
	for {
		select {
		case <-ctx.Done():
			return
		case batch, ok := <-from:
			if !ok {
				return
			}
			if n := batch.GetMissed(); n > missed {
				f.lost.Add(n - missed)
				missed = n
			}
			for _, fact := range batch.GetFacts() {
				f.take(fact.GetCgroup())
			}
		}
	}
}

// take passes on what may be a container's. Those that were there before are in the
// runtime's list.
func (f *facts) take(g *protov1.CgroupFact) {
	change := g.GetChange()
	if change != protov1.CgroupFact_CHANGE_CREATED && change != protov1.CgroupFact_CHANGE_REMOVED {
		return
	}
	id, by := containerID(g.GetPath())
	if id == "" {
		return
	}
	select {
	case f.news <- cgroupNews{id: id, by: by, removed: change == protov1.CgroupFact_CHANGE_REMOVED}:
	default:
		f.lost.Add(1)
	}
}

// forgetOld drops what waits: a list that is asked for now has it.
func (f *facts) forgetOld() {
	for {
		select {
		case <-f.news:
		default:
			return
		}
	}
}

// containerID is the id in the path of a cgroup that a CRI runtime made for a container,
// or "", and the runtime where the name tells it. What watches over a container, such as
// crio-conmon-ID, is none, nor is a container of Docker's own.
func containerID(cgroup string) (id, by string) {
	dir, name := path.Split(cgroup)
	name = strings.TrimSuffix(name, ".scope")
	if rest, ok := strings.CutPrefix(name, "crio-"); ok {
		name, by = rest, runtimeCRIO
	} else if rest, ok := strings.CutPrefix(name, "cri-containerd"); ok && rest != "" && (rest[0] == '-' || rest[0] == ':') {
		name, by = rest[1:], runtimeContainerd
	}
	if !describe.IsHex64(name) || by == "" && path.Base(dir) == "docker" {
		return "", ""
	}
	return name, by
}
