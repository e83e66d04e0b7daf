// Package place names files of the host: where they are when the daemon sees the
// host's root directory as its own, and where when that is mounted somewhere, as in a
// container.
//
// It owns nothing. It must never follow a symbolic link out of a mounted root: in there
// /var/run leads to the host's /run, and not to the container's.
package place

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Place is a path as the processes see it whose root directory Root is.
type Place struct {
	Root string // absolute; "": the daemon's own
	Path string // absolute and clean
}

// String is where a place is for the daemon, symbolic links left aside.
func (p Place) String() string { return filepath.Join(p.Root, p.Path) }

// maxTries is how often a place is opened whose way goes up, while files are renamed
// anywhere on the host: whoever renames for ever must not keep it from an end.
const maxTries = 64

// Open opens what is at the place, to be looked at and not to be read. Nothing that
// happens to the way meanwhile leads out of the root. The caller closes it.
func (p Place) Open() (int, error) {
	if p.Root == "" {
		fd, err := unix.Open(p.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: p.Path, Err: err}
		}
		return fd, nil
	}
	root, err := unix.Open(p.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open the host's root", Path: p.Root, Err: err}
	}
	defer unix.Close(root)
	for tries := 1; ; tries++ {
		fd, err := unix.Openat2(root, strings.TrimPrefix(p.Path, "/"), &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		switch {
		case errors.Is(err, unix.EAGAIN) && tries < maxTries: // the kernel can't rule out that something was moved out of the root
			continue
		case err != nil:
			return -1, &fs.PathError{Op: "open", Path: p.String(), Err: err}
		}
		return fd, nil
	}
}

// Stat tells what is at the place, links followed within the root.
func (p Place) Stat() (st unix.Stat_t, err error) {
	fd, err := p.Open()
	if err != nil {
		return st, err
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return st, &fs.PathError{Op: "stat", Path: p.String(), Err: err}
	}
	return st, nil
}

// Identity tells what is at the place from what takes its place later, also where a
// file system gives an inode's number to the next file; "" for nothing.
func (p Place) Identity() string {
	fd, err := p.Open()
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return ""
	}
	return identity(&st)
}

func identity(st *unix.Statx_t) string {
	var born unix.StatxTimestamp
	if st.Mask&unix.STATX_BTIME != 0 {
		born = st.Btime
	}
	return fmt.Sprintf("%d:%d:%d:%d:%d:%o:%d.%d", st.Dev_major, st.Dev_minor, st.Ino, st.Uid, st.Gid, st.Mode, born.Sec, born.Nsec)
}

// maxLinks is how many symbolic links a path may lead through, as for the kernel.
const maxLinks = 40

// Found is what a walk to a place came to.
type Found struct {
	// Real is the path from the root without symbolic links; "": there is nothing.
	Real string
	// Identity is as Place.Identity gives it.
	Identity string
	// Dir: it is a directory, whose entries came or went last at Changed.
	Dir     bool
	Changed int64 // nanoseconds since the epoch
}

// Walk goes to the place step by step. step is called before each with the directory,
// as the daemon sees it, and the name that is looked for there, and at last, if it is a
// directory that is there, with that and "". It is no way to open anything: what lies on
// the way may be another a moment later.
func (p Place) Walk(step func(dir, name string)) Found {
	root := p.Root
	if root == "" {
		root = "/"
	}
	at, rest := "/", strings.Split(p.Path, "/")
	var st unix.Statx_t
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		dir := filepath.Join(root, at)
		step(dir, name)
		full := filepath.Join(dir, name)
		err := unix.Statx(unix.AT_FDCWD, full, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
		if err != nil {
			return Found{}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			at = filepath.Join(at, name)
			continue
		}
		var target [unix.PathMax]byte
		n, err := unix.Readlink(full, target[:])
		if links++; err != nil || links > maxLinks {
			return Found{}
		}
		to := string(target[:n])
		if strings.HasPrefix(to, "/") {
			at = "/"
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	if at == "/" { // nothing that anybody could need
		return Found{}
	}
	f := Found{Real: at, Identity: identity(&st)}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		f.Dir, f.Changed = true, st.Mtime.Sec*1e9+int64(st.Mtime.Nsec)
		step(filepath.Join(root, at), "")
	}
	return f
}
