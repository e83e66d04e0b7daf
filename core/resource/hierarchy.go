package resource

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// controller is a part of what control groups account.
type controller uint8

const (
	cpuacct controller = iota // time used
	cpu                       // quota and throttling
	memory
	blkio
	pids
	psi // stalls: on v2 alone, and no controller there
	controllers
)

// What the controllers are called on v1 and on v2.
var (
	names1 = [controllers]string{cpuacct: "cpuacct", cpu: "cpu", memory: "memory", blkio: "blkio", pids: "pids"}
	names2 = [controllers]string{cpuacct: "cpu", cpu: "cpu", memory: "memory", blkio: "io", pids: "pids"}
)

// Hierarchies says where this host accounts what: on a hybrid host some controllers
// are mounted as cgroup v1, others may be part of v2. It is immutable.
type Hierarchies struct {
	v1    [controllers]mount
	v2    string // where it is mounted; "": it is not
	on2   [controllers]bool
	files []placed
}

// mount is a hierarchy of v1 that is mounted.
type mount struct {
	dir  string // "": it is not
	root string // the group of the hierarchy that is there
}

// placed is a file that is read, and whose group it is of.
type placed struct {
	file
	v1 bool
}

// Find finds out where the controllers are. root is where the default hierarchy is
// mounted, "" if it is not.
func Find(root string) (*Hierarchies, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	return find(mounts, root)
}

func find(mountinfo []byte, root string) (*Hierarchies, error) {
	h := &Hierarchies{v2: root, v1: mounts(string(mountinfo))}
	if root != "" {
		b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
		if err != nil {
			return nil, fmt.Errorf("read the controllers of cgroup v2: %w", err)
		}
		there := strings.Fields(string(b))
		for c, name := range names2 {
			h.on2[c] = slices.Contains(there, name)
		}
		h.on2[cpuacct] = true // in every group, with or without the controller
		h.on2[psi] = true
	}
	for _, f := range files1 {
		if h.v1[f.controller].dir != "" {
			h.files = append(h.files, placed{f, true})
		}
	}
	for _, f := range files2 {
		if h.v1[f.controller].dir == "" && h.on2[f.controller] {
			h.files = append(h.files, placed{f, false})
		}
	}
	return h, nil
}

// mounts finds the hierarchies of v1 in a mountinfo. Of several mounts of one the first
// that shows all of it counts, else the first.
func mounts(mountinfo string) (out [controllers]mount) {
	for l := range strings.SplitSeq(mountinfo, "\n") {
		left, right, _ := strings.Cut(l, " - ")
		at, fs := strings.Fields(left), strings.Fields(right)
		if len(at) < 5 || len(fs) < 3 || fs[0] != "cgroup" {
			continue
		}
		m := mount{dir: unescape(at[4]), root: unescape(at[3])}
		for o := range strings.SplitSeq(fs[2], ",") {
			c := slices.Index(names1[:], o)
			if c >= 0 && o != "" && (out[c].dir == "" || out[c].root != "/" && m.root == "/") {
				out[c] = m
			}
		}
	}
	return out
}

// unescape undoes what mountinfo does to white space.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// Place is a part of the accounting and where this host has it.
type Place struct {
	What  string `json:"what"`            // cpu, throttling, memory, io, pids, pressure
	Where string `json:"where,omitempty"` // "cgroup1 at /sys/fs/cgroup/memory", "": nowhere
}

// Places of the parts.
func (h *Hierarchies) Places() []Place {
	var out []Place
	for c, what := range [controllers]string{"cpu", "throttling", "memory", "io", "pids", "pressure"} {
		p := Place{What: what}
		switch {
		case h.v1[c].dir != "":
			p.Where = "cgroup1 at " + h.v1[c].dir
		case controller(c) == psi && !pressureIsKept():
		case h.on2[c]:
			p.Where = "cgroup2 at " + h.v2
		}
		out = append(out, p)
	}
	return out
}

// pressureIsKept tells whether the kernel accounts stalls: it may be built without it,
// or told not to.
func pressureIsKept() bool {
	b, err := os.ReadFile("/proc/pressure/cpu")
	return err == nil && bytes.HasPrefix(b, []byte("some "))
}

// groups are the directories of one container, below the mounts. "": it has none of its
// own there.
type groups struct {
	v1 [controllers]string
	v2 string
}

func (g *groups) none() bool { return *g == groups{} }

// lacks tells whether a hierarchy of v1 has no group of a container. A runtime makes them
// one after another, so that one may have come since they were looked for.
func (h *Hierarchies) lacks(g *groups) bool {
	for c := range h.v1 {
		if h.v1[c].dir != "" && g.v1[c] == "" {
			return true
		}
	}
	return false
}

// locate finds the groups of a container. main is its group on v2, "" if that is not
// known; id is what it is called, and status what /proc/PID/cgroup says of a process of
// it, "" if no process is known.
//
// On v1 it is where the process is, which need not be where it is on v2: the path as
// far as its last element that is named like the container's group on v2, or has the
// container's id in it. So a process that has moved to a group of its own inside the
// container stands for the whole container, and one that is in nobody's group for none.
// Without a process the path is that of v2.
func (h *Hierarchies) locate(main, id, status string) (g groups) {
	if main == "/" {
		main = "" // the whole host's
	}
	if h.v2 != "" {
		g.v2 = main
	}
	said := pathsOf(status)
	for c := range h.v1 {
		m := h.v1[c]
		if m.dir == "" {
			continue
		}
		for _, p := range []string{own(said[c], main, id), main} {
			if below, ok := m.below(p); ok && p != "" && isDir(m.dir+below) {
				g.v1[c] = below
				break
			}
		}
	}
	return g
}

// below is the part of a group's path that is below the mount.
func (m mount) below(p string) (string, bool) {
	if m.root == "/" {
		return p, true
	}
	below, ok := strings.CutPrefix(p, m.root)
	return below, ok && strings.HasPrefix(below, "/")
}

// pathsOf reads a /proc/PID/cgroup: where the process is in each hierarchy of v1.
func pathsOf(status string) (out [controllers]string) {
	for l := range strings.SplitSeq(status, "\n") {
		_, rest, _ := strings.Cut(l, ":")
		list, p, ok := strings.Cut(rest, ":")
		if !ok || !strings.HasPrefix(p, "/") || strings.HasPrefix(p, "/..") { // above what this process sees
			continue
		}
		for name := range strings.SplitSeq(list, ",") {
			if c := slices.Index(names1[:], name); c >= 0 && name != "" {
				out[c] = path.Clean(p)
			}
		}
	}
	return out
}

// shortest is how long an id must be to be recognised inside of a name.
const shortest = 12

// own is the part of a process's path that is its container's group, "" if none is.
func own(p, main, id string) string {
	end := 0
	for at := 1; at < len(p); {
		next := len(p)
		if n := strings.IndexByte(p[at:], '/'); n >= 0 {
			next = at + n
		}
		name := p[at:next]
		if name == id || len(id) >= shortest && strings.Contains(name, id) || main != "" && name == path.Base(main) {
			end = next
			break // what is below is inside the container
		}
		at = next + 1
	}
	return p[:end]
}

func isDir(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}
