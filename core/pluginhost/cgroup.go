package pluginhost

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroups gives every instance of a plugin a control group of its own on the
// default (v2) hierarchy, so that all it started can be ended with it. They stand
// under PARENT/PIDNS-PID-STARTTIME: the name tells whose they are, also to a later
// daemon that finds them left behind.
type cgroups struct{ dir string }

// parentCgroup is the directory, at the root of the hierarchy, of all hosts.
const parentCgroup = "ebpf-tracer"

// newCgroups makes the host's directory under mount, the root of the default
// hierarchy, and ends what dead hosts left there. The error says why instances
// will have no control group.
func newCgroups(mount string) (*cgroups, error) {
	if mount == "" {
		return nil, errors.New("no cgroup2 hierarchy is mounted")
	}
	parent := filepath.Join(mount, parentCgroup)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	sweep(parent)
	own, err := hostName(os.Getpid())
	if err != nil {
		return nil, err
	}
	c := &cgroups{dir: filepath.Join(parent, own)}
	if err := os.Mkdir(c.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	return c, nil
}

// close removes the host's directories, as far as they are empty.
func (c *cgroups) close() error {
	if err := os.Remove(c.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove control group: %w", err)
	}
	// Another host may have its own in there, which is no error.
	_ = os.Remove(filepath.Dir(c.dir))
	return nil
}

// hostName names the host that is process pid of this pid namespace.
func hostName(pid int) (string, error) {
	ns, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return "", fmt.Errorf("read own pid namespace: %w", err)
	}
	ns = strings.TrimSuffix(strings.TrimPrefix(ns, "pid:["), "]")
	st, err := readProc(pid)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s-%d-%d", ns, pid, st.start), nil
}

// sweep ends the plugins of hosts that are gone. A host of another pid namespace
// can't be looked up: its directories go only when they are empty, as they are
// when their namespace is gone.
func sweep(parent string) {
	hosts, err := os.ReadDir(parent)
	if err != nil {
		return // nothing to sweep; making our own will tell why
	}
	for _, h := range hosts {
		parts := strings.Split(h.Name(), "-")
		if !h.IsDir() || len(parts) != 3 {
			continue
		}
		dir := filepath.Join(parent, h.Name())
		pid, err := strconv.Atoi(parts[1])
		if err != nil {
			continue
		}
		alive, err := hostName(pid)
		if err == nil && alive == h.Name() {
			continue
		}
		own, err := hostName(os.Getpid())
		same := err == nil && strings.HasPrefix(own, parts[0]+"-")
		instances, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, i := range instances {
			if !i.IsDir() {
				continue
			}
			g, patience := cgroup(filepath.Join(dir, i.Name())), time.Duration(0)
			if same {
				_ = g.kill() // gone already is as good
				patience = time.Second
			}
			_ = g.remove(patience)
		}
		_ = os.Remove(dir) // not empty: it is swept the next time
	}
}

// cgroup is the control group of one instance: its path, "" for none.
type cgroup string

// make makes the control group of an instance. A nil c makes none.
func (c *cgroups) make(name string) (cgroup, error) {
	if c == nil {
		return "", nil
	}
	g := cgroup(filepath.Join(c.dir, name))
	if err := os.MkdirAll(string(g), 0o755); err != nil {
		return "", fmt.Errorf("make control group: %w", err)
	}
	return g, nil
}

// kill sends SIGKILL to everything in the group (kernel 5.14 and later).
func (g cgroup) kill() error {
	if g == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(string(g), "cgroup.kill"), []byte("1"), 0)
}

// add moves a process into the group.
func (g cgroup) add(pid int) error {
	if err := os.WriteFile(filepath.Join(string(g), "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("move process %d into its control group: %w", pid, err)
	}
	return nil
}

// limit caps the group's memory in bytes. It fails where the memory controller is
// not on the default hierarchy.
func (g cgroup) limit(memory int64) error {
	if g == "" || memory <= 0 {
		return nil
	}
	return os.WriteFile(filepath.Join(string(g), "memory.max"), []byte(strconv.FormatInt(memory, 10)), 0)
}

// remove removes the group, waiting up to patience for its last process.
func (g cgroup) remove(patience time.Duration) error {
	if g == "" {
		return nil
	}
	until := time.Now().Add(patience)
	for {
		err := os.Remove(string(g))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(until) {
			return fmt.Errorf("remove control group: %w", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// defaultHierarchy is where the default hierarchy's root is mounted, "" if
// nowhere.
func defaultHierarchy() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find the cgroup2 mount: %w", err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		// id parent major:minor root mountpoint options ... - type source super
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if ok && len(fields) > 4 && strings.HasPrefix(after, "cgroup2 ") && fields[3] == "/" {
			return fields[4], nil
		}
	}
	return "", s.Err()
}
