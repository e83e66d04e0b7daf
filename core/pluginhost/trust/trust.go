// Package trust judges who could have written what the daemon is about to run. A
// plugin runs with rights that most users of a host do not have, so nobody may be
// able to put another program in its place.
//
// It owns nothing and opens no file by a path that others control. It must never
// be lenient: what it can't judge is not trusted.
package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Owners are the users whose files are run. It is safe for concurrent use.
type Owners struct{ uids map[uint32]bool }

// Daemon trusts root, the daemon's own user, and whoever owns the daemon's binary:
// who can replace that need not replace a plugin.
func Daemon() (Owners, error) {
	o := Owners{uids: map[uint32]bool{0: true, uint32(os.Geteuid()): true}}
	st, err := os.Stat("/proc/self/exe")
	if err != nil {
		return o, fmt.Errorf("look up the owner of this program: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		o.uids[sys.Uid] = true
	}
	return o, nil
}

// Entry judges a file or directory of root; path is how it is called in errors.
func (o Owners) Entry(root *os.Root, name, path string) error {
	st, err := root.Lstat(name)
	if err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	return o.File(st, path)
}

// File judges what was found at path.
func (o Owners) File(st fs.FileInfo, path string) error {
	if st.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("%s is a symbolic link; plugins are only run from real files and directories: put a copy there", path)
	}
	if st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others can write to %s (mode %04o), so it is not run; take that away with: chmod go-w %s", path, st.Mode().Perm(), path)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !o.uids[sys.Uid] {
		return fmt.Errorf("%s belongs to user %d, who is neither root nor the daemon's user, so it is not run; give it to root with: chown root %s", path, sys.Uid, path)
	}
	return nil
}

// Open opens a regular file below root for reading. Nothing on the way to it may
// be a symbolic link; every directory on the way, and the file itself, are judged,
// and what is judged is what was opened. path is how root is called in errors.
// fs.ErrNotExist says that there is no such file.
func (o Owners) Open(root *os.Root, path, name string) (*os.File, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("%s is outside of its directory %s", name, path)
	}
	first, rest, deeper := strings.Cut(filepath.Clean(name), string(filepath.Separator))
	path = filepath.Join(path, first)
	seen, err := root.Lstat(first)
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", path, err)
	}
	if err := o.File(seen, path); err != nil {
		return nil, err
	}
	if !deeper {
		return openFile(root, first, path, seen)
	}
	dir, err := root.OpenRoot(first)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer dir.Close()
	opened, err := dir.Stat(".")
	if err := same(seen, opened, err, path); err != nil {
		return nil, err
	}
	return o.Open(dir, path, rest)
}

func openFile(root *os.Root, name, path string, seen fs.FileInfo) (*os.File, error) {
	if !seen.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	// Should it be a pipe by now, opening it is not to wait for a writer.
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	opened, err := f.Stat()
	if err := same(seen, opened, err, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ErrChanged says that between two looks another file came to a path, as when a
// plugin is being installed.
var ErrChanged = errors.New("it was replaced at this moment: try again")

// same makes sure that what was opened is what was judged.
func same(seen, opened fs.FileInfo, err error, path string) error {
	if err == nil && !os.SameFile(seen, opened) {
		err = ErrChanged
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	return nil
}
