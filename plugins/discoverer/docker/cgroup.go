package main

import (
	"path"
	"path/filepath"
	"syscall"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
)

// engine is what the daemon says of itself.
type engine struct {
	runtime      string // docker, podman
	version      string
	cgroupDriver string // cgroupfs, systemd, none; "" when not told
}

// cgroups works out the cgroup of a container from the engine's driver and the
// container's parent. Docker does not tell the path.
type cgroups struct {
	engine engine
	root   string // where the default hierarchy is mounted; "" if nowhere
}

// find gives the path of a container on the default hierarchy and, when it
// runs, the cgroup's id; "" and 0 when not known. The cgroup of a running
// container must be there: a daemon that itself runs in a container has its
// cgroups elsewhere.
func (g cgroups) find(id, parent string, running bool) (string, uint64) {
	p := g.path(id, parent)
	if p == "" || !running || g.root == "" {
		return p, 0
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(g.root, p), &st); err != nil {
		return "", 0
	}
	return p, st.Ino
}

func (g cgroups) path(id, parent string) string {
	var p string
	switch g.engine.cgroupDriver {
	case "systemd":
		slice, prefix := "system.slice", "docker-"
		if g.engine.runtime == "podman" {
			slice, prefix = "machine.slice", "libpod-"
		}
		if parent != "" {
			slice = parent
		}
		dir, ok := describe.ExpandSlice(slice)
		if !ok {
			return ""
		}
		p = path.Join(dir, prefix+id+".scope")
	case "cgroupfs":
		dir, name := "/docker", id
		if g.engine.runtime == "podman" {
			dir, name = "/libpod_parent", "libpod-"+id
		}
		if parent != "" {
			dir = parent
		}
		if !path.IsAbs(dir) {
			// Relative to where the low-level runtime runs, which isn't told.
			return ""
		}
		p = path.Join(dir, name)
	default:
		return ""
	}
	if len(p) > describe.MaxName {
		return ""
	}
	return p
}
