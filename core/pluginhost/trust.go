package pluginhost

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// trust judges who could have written what the daemon is about to run. A plugin
// runs with rights that most users of a host do not have, so nobody may be able
// to put another program in its place.
type trust struct{ owners map[uint32]bool }

// newTrust trusts root, the daemon's own user, and whoever owns the daemon's
// binary: who can replace that need not replace a plugin.
func newTrust() (trust, error) {
	t := trust{owners: map[uint32]bool{0: true, uint32(os.Geteuid()): true}}
	st, err := os.Stat("/proc/self/exe")
	if err != nil {
		return t, fmt.Errorf("look up the owner of this program: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		t.owners[sys.Uid] = true
	}
	return t, nil
}

// entry judges a file or directory of root; path is how it is called in errors.
func (t trust) entry(root *os.Root, name, path string) error {
	st, err := root.Lstat(name)
	if err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	return t.file(st, path)
}

func (t trust) file(st fs.FileInfo, path string) error {
	if st.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("%s is a symbolic link; plugins are only run from real files and directories: put a copy there", path)
	}
	if st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others can write to %s (mode %04o), so it is not run; take that away with: chmod go-w %s", path, st.Mode().Perm(), path)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !t.owners[sys.Uid] {
		return fmt.Errorf("%s belongs to user %d, who is neither root nor the daemon's user, so it is not run; give it to root with: chown root %s", path, sys.Uid, path)
	}
	return nil
}
