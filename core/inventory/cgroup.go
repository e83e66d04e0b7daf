package inventory

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// CgroupCreated tells of a cgroup of the default hierarchy and its path from the
// hierarchy's root.
func (i *Inventory) CgroupCreated(id uint64, path string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.sweep()
	if i.Lookup(id) != nil {
		return
	}
	g := &Cgroup{ID: id, Path: path, hints: hints(path)}
	i.store(g, true)
	i.byPath[path] = g
	for _, h := range g.hints {
		if i.byHint[h] == nil {
			i.byHint[h] = map[*Cgroup]struct{}{}
		}
		i.byHint[h][g] = struct{}{}
	}
	i.own(g)
	i.tellCgroup(g, protov1.CgroupFact_CHANGE_CREATED)
}

// CgroupRemoved tells that a cgroup is gone. It is remembered for a while.
func (i *Inventory) CgroupRemoved(id uint64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	g := i.Lookup(id)
	if g == nil || !g.removed.IsZero() {
		return
	}
	g.removed = i.options.Now()
	i.leaving = append(i.leaving, g)
	if i.byPath[g.Path] == g {
		delete(i.byPath, g.Path)
	}
	i.tellCgroup(g, protov1.CgroupFact_CHANGE_REMOVED)
	i.sweep()
}

// store puts a cgroup into its shard, or takes it out.
func (i *Inventory) store(g *Cgroup, in bool) {
	shard := &i.cgroups[g.ID%shards]
	next := maps.Clone(*shard.Load())
	if in {
		next[g.ID] = g
	} else {
		delete(next, g.ID)
	}
	shard.Store(&next)
}

// own finds the container that a cgroup belongs to: the outermost one in its path
// that is known.
func (i *Inventory) own(g *Cgroup) {
	owner := i.ownerOf(g)
	if owner == g.owner {
		if owner != nil {
			g.workload.Store(owner.workload)
		}
		return
	}
	if g.owner != nil {
		delete(g.owner.cgroups, g)
		if owner != nil {
			i.stats.Corrected++
		}
	}
	g.owner = owner
	if owner == nil {
		g.workload.Store(nil)
		return
	}
	owner.cgroups[g] = struct{}{}
	g.workload.Store(owner.workload)
}

func (i *Inventory) ownerOf(g *Cgroup) *container {
	// What a runtime says of its own cgroup counts before what a name hints at.
	for path := g.Path; len(path) > 1; path = parent(path) {
		if at := i.byPath[path]; at != nil && at.owner != nil && at.owner.claims(at) {
			if outer := i.hinted(g, len(path)); outer != nil {
				return outer
			}
			return at.owner
		}
	}
	return i.hinted(g, len(g.Path)+1)
}

// hinted is the outermost known container whose id stands in the path before end.
func (i *Inventory) hinted(g *Cgroup, end int) *container {
	for _, h := range g.hints {
		if strings.Index(g.Path, h) >= end {
			break
		}
		for c := range i.byID[h] {
			return c // ids of 64 hex digits are unique by themselves
		}
	}
	return nil
}

func parent(path string) string {
	at := strings.LastIndexByte(path, '/')
	if at <= 0 {
		return "/"
	}
	return path[:at]
}

// hints are the container ids in a path, from the root on. Runtimes name the
// cgroup of a container by its id of 64 hex digits, some with a word before it
// (crio-, libpod-, docker-, cri-containerd-) and some with .scope behind. It is a
// hint only, since anybody may name a cgroup like this: it counts when a runtime
// has told of such a container.
func hints(path string) (out []string) {
	for name := range strings.SplitSeq(path, "/") {
		name = strings.TrimSuffix(name, ".scope")
		if at := strings.LastIndexByte(name, '-'); at >= 0 {
			name = name[at+1:]
		}
		if len(name) == 64 && isHex(name) {
			out = append(out, name)
		}
	}
	return out
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Scan tells the inventory of every cgroup below root, where the default
// hierarchy is mounted, and gives their number. Cgroups that come and go
// meanwhile are the kernel's to tell.
func (i *Inventory) Scan(root string) (n int, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil
			}
			return err
		}
		if !d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil // gone meanwhile
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("no inode of %s", path)
		}
		rel := strings.TrimPrefix(path, root)
		if rel == "" {
			rel = "/"
		}
		i.CgroupCreated(st.Ino, rel)
		n++
		return nil
	})
	if err != nil {
		return n, fmt.Errorf("list cgroups: %w", err)
	}
	return n, nil
}

// Root finds where the default cgroup hierarchy is mounted.
func Root() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", fmt.Errorf("read the mounts: %w", err)
	}
	for line := range strings.SplitSeq(string(mounts), "\n") {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return strings.ReplaceAll(f[1], `\040`, " "), nil
		}
	}
	return "", ErrNoDefaultHierarchy
}

// OfPID finds the cgroup of a process by /proc, nil when it is not known.
func (i *Inventory) OfPID(pid uint32) (*Cgroup, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, fmt.Errorf("read the cgroup of process %d: %w", pid, err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			i.mu.Lock()
			defer i.mu.Unlock()
			return i.byPath[path], nil
		}
	}
	return nil, nil
}
