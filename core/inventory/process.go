package inventory

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// OfPID finds the cgroup of a process by /proc, nil when it is not known. The path
// that /proc tells is seen from the cgroup namespace of the reader, so the cgroup
// is found by its inode below the root that Scan was told, and by its path only
// when it can't be.
func (i *Inventory) OfPID(pid uint32) (*Cgroup, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, fmt.Errorf("read the cgroup of process %d: %w", pid, err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		path, ok := strings.CutPrefix(line, "0::")
		if !ok {
			continue
		}
		if g, ok := i.byInode(path); ok {
			return g, nil
		}
		return i.byPath(path), nil
	}
	return nil, nil
}

// Procs gives the first processes of a cgroup, at most so many, as this process's pid
// namespace numbers them; those that it does not see are left out. Those of cgroups
// below are not among them.
func (i *Inventory) Procs(g *Cgroup, most int) ([]uint32, error) {
	root := i.mount.Load()
	if root == nil {
		return nil, ErrNoDefaultHierarchy
	}
	f, err := os.Open(filepath.Join(*root, g.Path, "cgroup.procs"))
	if err != nil {
		return nil, fmt.Errorf("list the processes of a cgroup: %w", err)
	}
	defer f.Close()
	var pids []uint32
	lines := bufio.NewScanner(f)
	for len(pids) < most && lines.Scan() {
		pid, err := strconv.ParseUint(lines.Text(), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("list the processes of a cgroup: %w", err)
		}
		if pid != 0 {
			pids = append(pids, uint32(pid))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("list the processes of a cgroup: %w", err)
	}
	return pids, nil
}

// byInode finds a cgroup by the path of a process in /proc; false: it can't be
// found so.
func (i *Inventory) byInode(path string) (*Cgroup, bool) {
	root := i.mount.Load()
	if root == nil {
		return nil, false
	}
	// The mount shows the hierarchy from a root of its own, which is not this
	// process's when it was made in another cgroup namespace.
	from, err := mountedFrom(*root)
	if err != nil {
		return nil, false
	}
	below, ok := strings.CutPrefix(path, strings.TrimSuffix(from, "/"))
	if !ok || below != "" && below[0] != '/' || strings.HasPrefix(below, "/..") {
		return nil, false
	}
	id, err := inodeOf(filepath.Join(*root, below))
	if err != nil {
		return nil, false
	}
	return i.Lookup(id), true
}

// byPath finds a cgroup that is there by its path.
func (i *Inventory) byPath(path string) *Cgroup {
	i.lock()
	defer i.mu.Unlock()
	i.finish()
	if n := i.tree.find(path); n != nil {
		if g := n.newest(); g != nil && g.removed.IsZero() {
			return g
		}
	}
	return nil
}

// mountedFrom gives the directory of the hierarchy that is mounted at root, seen
// from this process's cgroup namespace: "/" when they agree.
func mountedFrom(root string) (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("read the mounts: %w", err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 4 && strings.ReplaceAll(f[4], `\040`, " ") == root && strings.Contains(line, " - cgroup2 ") {
			return f[3], nil
		}
	}
	return "", fmt.Errorf("%s is not a mount of the default cgroup hierarchy", root)
}
