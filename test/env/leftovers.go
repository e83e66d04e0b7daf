package env

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pidsThat are the processes of the machine that pass a test.
func pidsThat(pass func(pid int) bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pass(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// servants are the programs that serve containers beside the daemons: shims and monitors,
// and the runtimes that these start.
var servants = []string{"runc", "conmon", "podman", "containerd-shim-runc-v2"}

// isShim tells whether a process serves containers of the environment in dir: a shim or a
// monitor, or the runc that it started, which may be the wrapper. outside are the sockets
// of its daemons elsewhere, of which a shim's command line may tell alone.
func isShim(pid int, dir string, outside []string) bool {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false // gone
	}
	args := strings.Split(string(cmdline), "\x00")
	if len(args) > 1 && args[1] == filepath.Join(dir, runcWrapName) {
		return true
	}
	return slices.Contains(servants, filepath.Base(args[0])) &&
		slices.ContainsFunc(args[1:], func(arg string) bool {
			_, value, _ := strings.Cut(arg, "=")
			return strings.HasPrefix(arg, dir+"/") || strings.HasPrefix(value, dir+"/") || slices.Contains(outside, arg)
		})
}

// isContained tells whether a process is in a container of the environment in dir: its
// root is then a mount of layers that lie there, or of a directory there.
func isContained(pid int, dir string) bool {
	mounts, err := readMounts(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return false // gone, or a kernel thread
	}
	return slices.ContainsFunc(mounts, func(m mount) bool {
		// the path of a mounted directory begins at its own file system's root
		return m.point == "/" && (strings.Contains(m.options, "="+dir+"/") ||
			strings.Contains(m.root, "/"+filepath.Join(filepath.Base(Root), filepath.Base(dir))+"/"))
	})
}

// killContained sends SIGKILL to the processes of the containers of the environment in
// dir.
func killContained(dir string) error {
	_, err := killThat(func(pid int) bool { return isContained(pid, dir) })
	return err
}

// killOwned ends all processes that belong to the environment in dir beyond its daemons,
// shims and those of containers, until there is none.
func killOwned(ctx context.Context, dir string, outside []string) error {
	return poll(ctx, func() error {
		pids, err := killThat(func(pid int) bool { return isShim(pid, dir, outside) || isContained(pid, dir) })
		if err == nil && len(pids) > 0 {
			err = fmt.Errorf("processes %v of %s are still running", pids, dir)
		}
		return err
	})
}

// killThat sends SIGKILL to the processes that pass a test, and returns them.
func killThat(pass func(pid int) bool) ([]int, error) {
	pids, err := pidsThat(pass)
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // gone
		}
		if pass(pid) { // still: the pid may be another's by now
			err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return pids, fmt.Errorf("end process %d: %w", pid, err)
		}
	}
	return pids, nil
}

type mount struct {
	root    string // in the file system
	point   string
	fstype  string
	options string // of the superblock
}

// readMounts reads a mountinfo file.
func readMounts(path string) ([]mount, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var mounts []mount
	for line := range bytes.Lines(text) {
		before, after, found := strings.Cut(string(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !found || len(left) < 5 || len(right) < 3 {
			return nil, fmt.Errorf("read %s: unexpected line %q", path, line)
		}
		mounts = append(mounts, mount{unescape.Replace(left[3]), unescape.Replace(left[4]), right[0], right[2]})
	}
	return mounts, nil
}

func mountsBelow(dir string) ([]string, error) {
	mounts, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var points []string
	for _, m := range mounts {
		if strings.HasPrefix(m.point, dir+"/") {
			points = append(points, m.point)
		}
	}
	return points, nil
}

// unmountBelow unmounts everything below dir, and says so if something is left: what
// is mounted there must not be removed with the directory.
func unmountBelow(dir string) error {
	points, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, point := range slices.Backward(points) { // the latest mount first
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	if points, err = mountsBelow(dir); err == nil && len(points) > 0 {
		err = fmt.Errorf("still mounted: %s", strings.Join(points, ", "))
	}
	return err
}

// cgroupRoots are the mount points of all cgroup hierarchies, v1 and v2.
func cgroupRoots() ([]string, error) {
	mounts, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, m := range mounts {
		if m.fstype == "cgroup" || m.fstype == "cgroup2" {
			roots = append(roots, m.point)
		}
	}
	return roots, nil
}

// cgroupsOf returns the cgroups of containers, in all hierarchies: those whose last
// element is one of ids, or holds one that is long enough to be nothing else. So
// /docker/ID, /default/ID, /system.slice/docker-ID.scope, /kubepods/.../crio-conmon-ID.
func cgroupsOf(ids []string) ([]string, error) {
	roots, err := cgroupRoots()
	if err != nil {
		return nil, err
	}
	const whole = 64 // hex digits
	of := func(id, name string) bool { return name == id || len(id) == whole && strings.Contains(name, id) }
	var found []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // gone meanwhile
			}
			if err != nil || !d.IsDir() {
				return err
			}
			if !slices.ContainsFunc(ids, func(id string) bool { return of(id, d.Name()) }) {
				return nil
			}
			found = append(found, path)
			return fs.SkipDir
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// removeCgroups removes the cgroups of containers, and of pods, whose processes are gone.
// A runtime does so itself with those of containers, unless it was killed.
func removeCgroups(ids, pods []string) error {
	dirs, err := cgroupsOf(ids)
	if err != nil {
		return err
	}
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, pod := range pods {
		for _, root := range roots {
			dirs = append(dirs, filepath.Join(root, pod))
		}
	}
	for _, dir := range dirs {
		if err := removeCgroup(dir); err != nil {
			return fmt.Errorf("remove cgroup: %w", err)
		}
	}
	return nil
}

// removeCgroup removes a cgroup and those below it, children first.
func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}
