package inventory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ErrNoDefaultHierarchy says that this host has cgroup v1 alone.
var ErrNoDefaultHierarchy = errors.New("no cgroup2 hierarchy is mounted: containers are told apart by it; mount one (mount -t cgroup2 none /sys/fs/cgroup/unified) or boot with systemd.unified_cgroup_hierarchy=1")

// rootInode is the inode of the default hierarchy's root, and of no other cgroup.
const rootInode = 1

// Scan tells the inventory of every cgroup below root, where the default
// hierarchy is mounted, and gives their number. It finds those that the kernel's
// word was lost of, and if root is that of the whole hierarchy also those whose
// end was. OfPID looks below the same root from then on.
func (i *Inventory) Scan(root string) (n int, err error) {
	i.scanning.Lock()
	defer i.scanning.Unlock()
	i.mount.Store(&root)
	i.lock()
	i.scans++
	scan := i.scans
	i.mu.Unlock()
	whole := false
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path != root && os.IsNotExist(err) {
				return nil
			}
			return err
		}
		if !d.IsDir() {
			return nil
		}
		inode, err := inodeOf(path)
		if err != nil {
			if os.IsNotExist(err) {
				return nil // gone meanwhile
			}
			return err
		}
		rel := strings.TrimPrefix(path, root)
		if rel == "" {
			rel = "/"
			whole = inode == rootInode
		}
		i.present(inode, rel, path, scan)
		n++
		return nil
	})
	if err != nil {
		return n, fmt.Errorf("list cgroups: %w", err)
	}
	i.missing(root, scan, whole)
	return n, nil
}

// RootAlone says that nobody has mounted the default hierarchy: it has no cgroup but
// its root then, which all processes are in.
func (i *Inventory) RootAlone() { i.CgroupCreated(rootInode, "/", time.Time{}) }

// present takes a cgroup that a scan found.
func (i *Inventory) present(id uint64, rel, path string, scan uint64) {
	g, made := i.cgroups.add(id, rel)
	i.lock()
	i.link(g, time.Time{})
	g.scan = scan
	i.finish()
	i.mu.Unlock()
	// It may have been removed after it was found and before it was known, so
	// that the kernel's word of its end was of nobody.
	if made && !isAt(path, id) {
		i.lock()
		i.remove(g, i.options.Now())
		i.mu.Unlock()
	}
}

// missing takes the cgroups whose news found no room in the queue, and notes that
// those are gone that a scan did not see and that are not at their paths.
func (i *Inventory) missing(root string, scan uint64, whole bool) {
	i.cgroups.each(func(g *Cgroup) {
		i.lock()
		unseen := g.node == nil || g.scan != scan && g.removed.IsZero()
		i.link(g, time.Time{})
		i.mu.Unlock()
		if !whole || !unseen || isAt(filepath.Join(root, g.Path), g.ID) {
			return
		}
		i.lock()
		i.remove(g, i.options.Now())
		i.mu.Unlock()
	})
}

// isAt tells whether a cgroup is at a path of the file system. What can't be told
// is taken to be there.
func isAt(path string, id uint64) bool {
	inode, err := inodeOf(path)
	if err != nil {
		return !os.IsNotExist(err)
	}
	return inode == id
}

// inodeOf a directory of the default hierarchy is its cgroup's id.
func inodeOf(path string) (uint64, error) {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return st.Ino, nil
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
