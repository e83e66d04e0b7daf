package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/place"
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
		r.notApplied("own root directory and namespaces", errors.New(r.plan.Shared))
		if err := os.Chdir(r.plan.Dir); err != nil {
			return fmt.Errorf("enter the plugin's directory: %w", err)
		}
		return nil
	}
	root := r.plan.NewRoot
	// Nothing that is mounted here shows anywhere else.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		// So says a security module that lets nobody mount.
		r.report.NoRoot = errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
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
	at, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the plugin's root: %w", err)
	}
	defer unix.Close(at)
	for _, m := range r.plan.Mounts {
		if err := bind(at, m); err != nil {
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
	if r.plan.OwnNetwork {
		r.applied("own pid, ipc and network namespaces")
	} else {
		r.applied("own pid and ipc namespaces")
	}
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
	// Read-only: it has the kernel's settings too, of which some are any root's.
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY
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

// bind shows something of the host in the new root, whose directory is open. What is
// looked at is what is shown: it is opened once, since others than root may own a
// part of the way to it.
func bind(root int, m Mount) error {
	what := place.Place{Root: m.Root, Path: m.From}
	show := func(err error) error { return fmt.Errorf("show %s to the plugin: %w", what, err) }
	from, err := what.Open()
	if errors.Is(err, unix.ENOENT) && m.Optional {
		return nil
	}
	if err != nil {
		return show(err)
	}
	defer unix.Close(from)
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return show(err)
	}
	kind := st.Mode & unix.S_IFMT
	if m.Socket && kind != unix.S_IFSOCK {
		return show(errors.New("it is no socket"))
	}
	for _, root := range []string{"/", m.Root} {
		var top unix.Stat_t
		if root == "" {
			continue
		}
		if err := unix.Stat(root, &top); err != nil {
			return show(err)
		}
		if st.Dev == top.Dev && st.Ino == top.Ino {
			return show(errors.New("it leads to the host's root directory: name what is read there"))
		}
	}
	at, err := mountPoint(root, m.To, kind == unix.S_IFDIR)
	if err != nil {
		return show(err)
	}
	err = unix.Mount(descriptor(from), descriptor(at), "", unix.MS_BIND|unix.MS_REC, "")
	unix.Close(at)
	if err != nil {
		return show(err)
	}
	attr := uint64(unix.MOUNT_ATTR_NOSUID)
	if kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		attr |= unix.MOUNT_ATTR_NODEV
	}
	if !m.Write {
		attr |= unix.MOUNT_ATTR_RDONLY
	} else if kind == unix.S_IFDIR {
		attr |= unix.MOUNT_ATTR_NOEXEC
	}
	if err := limitMount(root, m.To, attr); err != nil {
		return fmt.Errorf("limit what the plugin can do to %s: %w", what, err)
	}
	return nil
}

// limitMount takes rights from what is mounted at a path of the new root, and from all
// that is mounted below it.
func limitMount(root int, path string, attr uint64) error {
	at, err := within(root, path)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	err = unix.MountSetattr(at, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attr})
	if !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// Before Linux 5.12 each mount is taken by itself.
	top, err := os.Readlink(descriptor(at))
	if err != nil {
		return err
	}
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, m := range mountsBelow(string(raw), top) {
		if err := unix.Mount("", m.at, "", unix.MS_REMOUNT|unix.MS_BIND|m.flags|mountFlags(attr), ""); err != nil {
			return fmt.Errorf("%s: %w", m.at, err)
		}
	}
	return nil
}

// mounted is a mount as it is, with the flags that a remount would take away.
type mounted struct {
	at    string
	flags uintptr
}

// mountsBelow reads from a mountinfo what is mounted at top and below.
func mountsBelow(mountinfo, top string) []mounted {
	var out []mounted
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		m := mounted{at: octal.Replace(f[4])}
		if m.at != top && !strings.HasPrefix(m.at, top+"/") {
			continue
		}
		for _, o := range strings.Split(f[5], ",") {
			m.flags |= mountOptions[o]
		}
		out = append(out, m)
	}
	return out
}

// octal undoes how mountinfo writes what would end a field.
var octal = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

var mountOptions = map[string]uintptr{
	"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
}

// descriptor is a path to an open file.
func descriptor(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

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

// within opens a path as the plugin will: links in what is shown to it lead nowhere
// else than it sees.
func within(root int, path string) (int, error) {
	return unix.Openat2(root, strings.TrimPrefix(path, "/"), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// mountPoint makes something to mount on in the new root, unless what is mounted there
// has it, and opens it.
func mountPoint(root int, path string, dir bool) (int, error) {
	at, err := within(root, path)
	if !errors.Is(err, unix.ENOENT) {
		return at, err
	}
	above := root
	if up := filepath.Dir(path); up != "/" {
		if above, err = mountPoint(root, up, true); err != nil {
			return -1, err
		}
		defer unix.Close(above)
	}
	name := filepath.Base(path)
	if dir {
		err = unix.Mkdirat(above, name, 0o755)
	} else {
		err = unix.Mknodat(above, name, unix.S_IFREG|0o644, 0)
	}
	if err != nil {
		return -1, err
	}
	return within(root, path)
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
