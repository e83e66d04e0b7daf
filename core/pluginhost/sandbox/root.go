package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Sizes of the plugin's own file systems, in bytes.
const (
	socketBytes = 1 << 20
	tempBytes   = 64 << 20
)

// enterRoot builds a root directory that holds what the plugin may see and nothing
// else, and makes it the root of this process. The process is in a mount namespace
// of its own, which ends with it.
func (r *run) enterRoot() error {
	if !r.plan.Confine {
		if err := os.Chdir(r.plan.Dir); err != nil {
			return fmt.Errorf("enter the plugin's directory: %w", err)
		}
		return nil
	}
	root := r.plan.NewRoot
	// Nothing that is mounted here shows anywhere else.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	unix.Umask(0o022)
	if err := tmpfs(root, 0o755, 1<<20, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC); err != nil {
		return err
	}
	// What is shown may lie below the plugin's own file systems.
	if err := r.ownFileSystems(root); err != nil {
		return err
	}
	for _, m := range r.plan.Mounts {
		if err := bind(root, m); err != nil {
			return err
		}
	}
	if err := r.ownProc(root); err != nil {
		return err
	}
	if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("make the plugin's root read-only: %w", err)
	}
	if err := switchRoot(root); err != nil {
		return err
	}
	if err := os.Chdir(r.plan.Dir); err != nil {
		return fmt.Errorf("enter the plugin's directory: %w", err)
	}
	r.applied("own root directory")
	r.applied("own pid and ipc namespaces")
	return nil
}

// ownFileSystems mounts what the plugin may write to.
func (r *run) ownFileSystems(root string) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		at   string
		size int
	}{{SocketDir, socketBytes}, {TempDir, tempBytes}} {
		at := filepath.Join(root, m.at)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return fmt.Errorf("make %s for the plugin: %w", m.at, err)
		}
		if err := tmpfs(at, 0o700, m.size, flags); err != nil {
			return err
		}
		if err := os.Chown(at, int(r.plan.UID), int(r.plan.GID)); err != nil {
			return fmt.Errorf("give %s to the plugin: %w", m.at, err)
		}
	}
	return nil
}

// ownProc shows the plugin the processes of its pid namespace, unless it was given the
// host's.
func (r *run) ownProc(root string) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	proc := filepath.Join(root, "proc")
	if _, err := os.Lstat(proc); err == nil {
		return nil // it asked for the host's
	}
	if err := os.Mkdir(proc, 0o755); err != nil {
		return fmt.Errorf("make /proc for the plugin: %w", err)
	}
	if err := unix.Mount("proc", proc, "proc", flags, ""); err != nil {
		// As in a container whose own /proc is covered in parts. A plugin can do
		// without, the host's is not for it.
		r.notApplied("own /proc", err)
	}
	return nil
}

func tmpfs(at string, mode os.FileMode, size int, flags uintptr) error {
	err := unix.Mount("tmpfs", at, "tmpfs", flags, fmt.Sprintf("mode=%o,size=%d,nr_inodes=4096", mode, size))
	if err != nil {
		return fmt.Errorf("mount a file system for the plugin: %w", err)
	}
	return nil
}

// bind shows something of the host in the new root.
func bind(root string, m Mount) error {
	// A path on the host may lead over symbolic links; what they lead to stands
	// in the new root at the name that the plugin knows.
	from, err := filepath.EvalSymlinks(m.From)
	var st fs.FileInfo
	if err == nil {
		st, err = os.Stat(from)
	}
	if errors.Is(err, fs.ErrNotExist) && m.Optional {
		return nil
	}
	if err != nil {
		return fmt.Errorf("show %s to the plugin: %w", m.From, err)
	}
	to := filepath.Join(root, m.To)
	if err := place(to, st.IsDir()); err != nil {
		return fmt.Errorf("show %s to the plugin: %w", m.From, err)
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("show %s to the plugin: %w", m.From, err)
	}
	attr := uint64(unix.MOUNT_ATTR_NOSUID)
	if !device(st) {
		attr |= unix.MOUNT_ATTR_NODEV
	}
	if !m.Write {
		attr |= unix.MOUNT_ATTR_RDONLY
	} else if st.IsDir() {
		attr |= unix.MOUNT_ATTR_NOEXEC
	}
	err = unix.MountSetattr(unix.AT_FDCWD, to, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attr})
	if errors.Is(err, unix.ENOSYS) { // before 5.12: the topmost mount only
		err = unix.Mount("", to, "", unix.MS_REMOUNT|unix.MS_BIND|mountFlags(attr), "")
	}
	if err != nil {
		return fmt.Errorf("limit what the plugin can do to %s: %w", m.From, err)
	}
	return nil
}

func device(st fs.FileInfo) bool { return st.Mode()&fs.ModeDevice != 0 }

func mountFlags(attr uint64) (flags uintptr) {
	for bit, flag := range map[uint64]uintptr{
		unix.MOUNT_ATTR_NOSUID: unix.MS_NOSUID, unix.MOUNT_ATTR_NODEV: unix.MS_NODEV,
		unix.MOUNT_ATTR_RDONLY: unix.MS_RDONLY, unix.MOUNT_ATTR_NOEXEC: unix.MS_NOEXEC,
	} {
		if attr&bit != 0 {
			flags |= flag
		}
	}
	return flags
}

// place makes something to mount on.
func place(at string, dir bool) error {
	if dir {
		return os.MkdirAll(at, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// switchRoot makes root this process's root and the old one unreachable.
func switchRoot(root string) error {
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("enter the plugin's root: %w", err)
	}
	err := unix.PivotRoot(".", ".")
	if err == nil {
		// The old root now lies on the new one.
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("let go of the host's root: %w", err)
		}
		return chdirRoot()
	}
	if !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("change the root: %w", err)
	}
	// The host runs from its initial file system, which can't be exchanged. What
	// is covered can only be reached with capabilities that are given up next.
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	return chdirRoot()
}

func chdirRoot() error {
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("enter the plugin's root: %w", err)
	}
	return nil
}
