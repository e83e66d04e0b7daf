package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// root is a runtime's state directory: in it a directory for each container, called as
// the container's id. Those of containerd and Docker have one for each namespace, each
// of which is a root of its own.
type root struct {
	place
	parent  bool             // it holds roots
	inner   map[string]*root // of a parent, by name
	scope   string           // of ids that are not unique by themselves
	runtime string           // who manages its containers; "": the containers tell
	owner   uint32
	// trusted: nobody but root, or this process's user, can have written what is in it.
	trusted bool

	dir *os.Root // nil: it is not there
	at  inode
	wd  int32 // -1: not watched
}

type inode struct{ dev, ino uint64 }

func newRoot(p place) *root {
	r := &root{place: p, scope: "oci:" + p.name, wd: -1}
	up, base := path.Split(p.name)
	switch {
	case strings.HasSuffix(p.name, "/containerd/runc"), base == "runtime-runc":
		r.parent, r.inner = true, map[string]*root{}
	case strings.HasSuffix(up, "/containerd/runc/"):
		r.scope, r.runtime = "containerd:"+base, "containerd"
		if base == "moby" {
			r.runtime = "docker"
		}
	case strings.HasSuffix(up, "/runtime-runc/"):
		r.runtime = "docker"
	}
	return r
}

// namespace gives the root in a parent that is called so.
func (r *root) namespace(name string) *root {
	return newRoot(place{path: path.Join(r.path, name), name: path.Join(r.name, name), own: r.own})
}

// open opens the directory, if it is there.
func (r *root) open() error {
	dir, err := os.OpenRoot(r.path)
	if err != nil {
		return err
	}
	st, err := dir.Stat(".")
	if err != nil {
		return errors.Join(fmt.Errorf("look at %s: %w", r.path, err), dir.Close())
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.Join(fmt.Errorf("look at %s: it has no owner", r.path), dir.Close())
	}
	r.dir, r.at, r.owner = dir, inode{uint64(sys.Dev), sys.Ino}, sys.Uid
	r.trusted = trusted(sys.Uid, st.Mode())
	return nil
}

// trusted tells whether a directory is only written to by root, or by whoever runs the
// plugin.
func trusted(owner uint32, mode fs.FileMode) bool {
	return (owner == 0 || int(owner) == os.Geteuid()) && mode.Perm()&0o022 == 0
}

// holds tells whether a directory may be a container of the root: in a root that is
// trusted, none is that belongs to somebody else. One that is gone may have been one.
func (r *root) holds(id string) bool {
	if !r.trusted {
		return true
	}
	st, err := r.dir.Lstat(id)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && trusted(sys.Uid, st.Mode())
}

// replaced tells whether another directory, or none, is where the root was opened.
func (r *root) replaced() bool {
	var st unix.Stat_t
	return unix.Stat(r.path, &st) != nil || inode{uint64(st.Dev), st.Ino} != r.at
}

// names lists the directories in the root, no more than most of them.
func (r *root) names(most int) (names []string, err error) {
	f, err := r.dir.Open(".")
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", r.path, err)
	}
	defer f.Close()
	for len(names) < most {
		entries, err := f.ReadDir(min(256, most))
		for _, e := range entries {
			if e.IsDir() && validID(e.Name()) { // a link is no directory
				names = append(names, e.Name())
			}
		}
		if errors.Is(err, io.EOF) {
			return names, nil
		}
		if err != nil {
			return names, fmt.Errorf("list %s: %w", r.path, err)
		}
	}
	return names, nil
}

// ref names a container of the root. An id of 64 hex digits is unique by itself, where
// nobody could have made it up.
func (r *root) ref(id string) *protov1.ContainerRef {
	if r.trusted && describe.IsHex64(id) {
		return &protov1.ContainerRef{Id: id}
	}
	return &protov1.ContainerRef{Id: id, Scope: r.scope}
}

// validID tells whether a directory can be called after a container. What is hidden is
// crun's own.
func validID(name string) bool {
	return name != "" && name[0] != '.' && len(name) <= describe.MaxName && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}
