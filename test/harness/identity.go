package harness

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// identities tells which of a build's plugins a process runs, by what it runs: the
// daemon starts copies, so that no path tells.
type identities struct {
	mu      sync.Mutex
	plugins map[string][sha256.Size]byte // by path
	sizes   map[int64]bool
	known   map[fileID]string // what was hashed already
}

// fileID is a file at one state of it.
type fileID struct {
	dev, ino uint64
	changed  syscall.Timespec
}

// PluginOf is the path of the built plugin whose program a process runs; "" when it
// runs none of them.
func (b Binaries) PluginOf(pid int) string {
	p, err := b.identities.of(b.Plugins, fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return "" // it is gone, or a thread of the kernel
	}
	return p
}

func (i *identities) of(plugins, path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.read(plugins); err != nil {
		return "", err
	}
	sys := st.Sys().(*syscall.Stat_t)
	id := fileID{sys.Dev, sys.Ino, sys.Ctim}
	plugin, ok := i.known[id]
	if !ok && i.sizes[st.Size()] {
		sum, err := sumOf(path)
		if err != nil {
			return "", err
		}
		for p, s := range i.plugins {
			if s == sum {
				plugin = p
			}
		}
		i.known[id] = plugin
	}
	return plugin, nil
}

// read hashes the built plugins, once.
func (i *identities) read(plugins string) error {
	if i.plugins != nil {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(plugins, "*", "*"))
	if err != nil {
		return err
	}
	all, sizes := map[string][sha256.Size]byte{}, map[int64]bool{}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			return err
		}
		if strings.HasSuffix(f, ".plugin.hcl") {
			continue
		}
		if all[f], err = sumOf(f); err != nil {
			return err
		}
		sizes[st.Size()] = true
	}
	i.plugins, i.sizes, i.known = all, sizes, map[fileID]string{}
	return nil
}

func sumOf(path string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, fmt.Errorf("hash %s: %w", path, err)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
