package main

import (
	"bytes"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// hierarchy is the default hierarchy of cgroups, as the plugin sees it.
type hierarchy struct {
	root string // where it is mounted; "": it is not shown
	host string // where the host's root directory is
}

func newHierarchy(root, host string) hierarchy {
	if _, err := os.Stat(path.Join(root, "cgroup.procs")); root == "" || err != nil {
		root = ""
	}
	return hierarchy{root: root, host: host}
}

// pulse is what the kernel says of a cgroup.
type pulse struct {
	id        uint64
	owner     uint32
	populated bool
	frozen    bool
}

// visible tells whether anything can be said of a path.
func (h hierarchy) visible(p string) bool { return h.root != "" && p != "" }

// events is the file that changes with a cgroup's pulse.
func (h hierarchy) events(p string) string { return path.Join(h.root, p, "cgroup.events") }

// feel looks at a cgroup; false: it is not there.
func (h hierarchy) feel(p string) (out pulse, ok bool) {
	var st unix.Stat_t
	if unix.Stat(path.Join(h.root, p), &st) != nil {
		return out, false
	}
	raw, err := os.ReadFile(h.events(p))
	if err != nil {
		return out, false
	}
	out.id, out.owner = st.Ino, st.Uid
	for line := range bytes.Lines(raw) {
		switch string(bytes.TrimSpace(line)) {
		case "populated 1":
			out.populated = true
		case "frozen 1":
			out.frozen = true
		}
	}
	return out, true
}

// frozen tells whether the freezer of v1 has stopped a cgroup, whose path is that of the
// host's file system.
func (h hierarchy) frozen(dir string) bool {
	if !strings.HasPrefix(dir, "/sys/fs/cgroup/") || path.Clean(dir) != dir {
		return false
	}
	raw, err := os.ReadFile(path.Join(dir, "freezer.state"))
	if err != nil && h.host != "" {
		raw, err = os.ReadFile(path.Join(h.host, dir, "freezer.state"))
	}
	return err == nil && string(bytes.TrimSpace(raw)) == "FROZEN"
}
