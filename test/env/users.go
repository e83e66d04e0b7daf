package env

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// users is the machine-wide list of who runs an environment now, as a lock that each
// shares. Some directories are shared as well: the parent cgroups of containers, and some
// that runtimes make whatever they are told. Only the last to go may remove them, or a
// container that another's runtime is just making would fail.
//
// The file holds which of them were there before the first came. It is emptied by the
// last one to leave, so when they all died, the next one knows as much as they did.
type users struct{ file *os.File }

// sharedDirs are the shared directories that are there now.
func sharedDirs() ([]string, error) {
	roots, err := cgroupRoots()
	if err != nil {
		return nil, err
	}
	candidates := []string{shimDir, "/run/docker", runcDir, netnsDir, cniState}
	for _, root := range roots {
		for _, parent := range []string{"docker", CtrNamespace, CRINamespace, podParent, "libpod_parent"} {
			candidates = append(candidates, filepath.Join(root, parent))
		}
	}
	return slices.DeleteFunc(candidates, func(dir string) bool {
		_, err := os.Stat(dir)
		return err != nil
	}), nil
}

func joinUsers() (*users, error) {
	f, err := os.OpenFile(filepath.Join(Root, "users"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("join the users of %s: %w", Root, err)
	}
	u := &users{f}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		err = u.begin()
	}
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_SH)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("join the users of %s: %w", Root, err)
	}
	return u, nil
}

// leave gives the lock up; the last one also removes the shared directories that were
// not there before, as far as they are empty.
func (u *users) leave() error {
	defer u.file.Close()
	// those that outlive their process hold no lock
	named, err := filepath.Glob(filepath.Join(Root, namedPrefix+"*"))
	if err != nil || len(named) > 0 {
		return err
	}
	err = unix.Flock(int(u.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err == nil {
		err = u.end()
	}
	if err != nil {
		return fmt.Errorf("leave the users of %s: %w", Root, err)
	}
	return nil
}

// begin notes what is there, unless earlier users died and their note stands.
func (u *users) begin() error {
	info, err := u.file.Stat()
	if err != nil || info.Size() > 0 {
		return err
	}
	present, err := sharedDirs()
	if err != nil {
		return err
	}
	text, err := json.Marshal(present)
	if err != nil {
		return err
	}
	_, err = u.file.WriteAt(text, 0)
	return err
}

func (u *users) end() error {
	text, err := io.ReadAll(io.NewSectionReader(u.file, 0, 1<<20))
	if err != nil {
		return err
	}
	var before []string
	if err := json.Unmarshal(text, &before); err != nil {
		return err
	}
	present, err := sharedDirs()
	if err != nil {
		return err
	}
	for _, dir := range present {
		if !slices.Contains(before, dir) {
			if dir == netnsDir { // mounted on itself; with something in it, it stays so
				_ = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
			}
			removeEmptyDirs(dir)
		}
	}
	return u.file.Truncate(0)
}

// removeEmptyDirs removes a directory and those below it as far as they are empty; what
// is not is somebody else's by now.
func removeEmptyDirs(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeEmptyDirs(filepath.Join(dir, e.Name()))
		}
	}
	_ = unix.Rmdir(dir)
}
