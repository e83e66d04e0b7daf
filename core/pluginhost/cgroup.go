package pluginhost

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroups gives every instance of a plugin control groups of its own: one on the
// default (v2) hierarchy, so that all it started can be ended with it, and on the
// hierarchies of the memory and pids controllers, wherever these are, so that the
// kernel bounds what it uses. They stand under PARENT/PIDNS-PID-STARTTIME: the name
// tells whose they are, also to a later daemon that finds them left behind.
type cgroups struct {
	unified string // the host's directory on the default hierarchy; "": none
	// controllers are where limits are set: the host's directory on the hierarchy
	// that has the controller.
	controllers map[string]string
}

// parentCgroup is the directory, at the root of a hierarchy, of all hosts.
const parentCgroup = "ebpf-tracer"

// Controllers whose limits are set.
const (
	memoryController = "memory"
	pidsController   = "pids"
)

// newCgroups makes the host's directories under mounts, and ends what dead hosts
// left there. The error says why instances will have no control group that ends
// them; limits may be had all the same.
func newCgroups(mounts hierarchies) (*cgroups, error) {
	own, err := hostName(os.Getpid())
	if err != nil {
		return nil, err
	}
	c := &cgroups{controllers: map[string]string{}}
	var missing error
	if mounts.unified == "" {
		missing = errors.New("no cgroup2 hierarchy is mounted")
	} else if c.unified, err = hostGroup(mounts.unified, own); err != nil {
		c.unified, missing = "", err
	}
	for _, controller := range []string{memoryController, pidsController} {
		if at := mounts.v1[controller]; at != "" {
			if dir, err := hostGroup(at, own); err == nil {
				c.controllers[controller] = dir
			}
			continue
		}
		if c.unified != "" && c.enable(mounts.unified, controller) == nil {
			c.controllers[controller] = c.unified
		}
	}
	return c, missing
}

// hostGroup makes the directory of the host own on the hierarchy at mount.
func hostGroup(mount, own string) (string, error) {
	parent := filepath.Join(mount, parentCgroup)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("make a control group: %w", err)
	}
	sweep(parent)
	dir := filepath.Join(parent, own)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make a control group: %w", err)
	}
	return dir, nil
}

// enable lets the instances' groups have a controller of the default hierarchy.
func (c *cgroups) enable(mount, controller string) error {
	for _, dir := range []string{mount, filepath.Dir(c.unified), c.unified} {
		at := filepath.Join(dir, "cgroup.subtree_control")
		on, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		if slices.Contains(strings.Fields(string(on)), controller) {
			continue
		}
		if err := os.WriteFile(at, []byte("+"+controller), 0); err != nil {
			return err
		}
	}
	return nil
}

// dirs are the host's directories, each once.
func (c *cgroups) dirs() []string {
	var all []string
	for _, d := range []string{c.unified, c.controllers[memoryController], c.controllers[pidsController]} {
		if d != "" && !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return all
}

// close removes the host's directories, as far as they are empty.
func (c *cgroups) close() error {
	var errs []error
	for _, d := range c.dirs() {
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove control group: %w", err))
		}
		// Another host may have its own in there, which is no error.
		_ = os.Remove(filepath.Dir(d))
	}
	return errors.Join(errs...)
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
			at, patience := filepath.Join(dir, i.Name()), time.Duration(0)
			if same {
				_ = killAll(at) // gone already is as good
				patience = time.Second
			}
			_ = removeGroup(at, patience)
		}
		_ = os.Remove(dir) // not empty: it is swept the next time
	}
}

// cgroup are the control groups of one instance. nil has none.
type cgroup struct {
	unified string // "": none
	// limited are the directories by controller; one may be the unified one.
	limited map[string]string
}

// make makes the control groups of an instance. A nil c makes none.
func (c *cgroups) make(name string) (*cgroup, error) {
	if c == nil {
		return nil, nil
	}
	g := &cgroup{limited: map[string]string{}}
	for _, d := range c.dirs() {
		at := filepath.Join(d, name)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("make control group: %w", err), g.remove(0))
		}
		if d == c.unified {
			g.unified = at
		}
		for controller, of := range c.controllers {
			if of == d {
				g.limited[controller] = at
			}
		}
	}
	return g, nil
}

// all are the directories, each once.
func (g *cgroup) all() []string {
	if g == nil {
		return nil
	}
	return (&cgroups{unified: g.unified, controllers: g.limited}).dirs()
}

// kill sends SIGKILL to everything in the group (kernel 5.14 and later).
func (g *cgroup) kill() error {
	if g == nil || g.unified == "" {
		return nil
	}
	return killAll(g.unified)
}

func killAll(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
}

// add moves a process into the group of the default hierarchy.
func (g *cgroup) add(pid int) error {
	if err := os.WriteFile(filepath.Join(g.unified, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("move process %d into its control group: %w", pid, err)
	}
	return nil
}

// later are the groups that a process can't be started in and has to enter itself.
func (g *cgroup) later() []string {
	return slices.DeleteFunc(g.all(), func(d string) bool { return d == g.unified })
}

// limit caps memory in bytes and the number of processes and threads. It returns
// what could not be capped, with the reason.
func (g *cgroup) limit(memory, processes int64) map[string]error {
	failed := map[string]error{}
	for _, x := range []struct {
		controller string
		most       int64
		files      []string // the first that is there is written
		also       map[string]string
	}{
		{memoryController, memory, []string{"memory.max", "memory.limit_in_bytes"}, map[string]string{
			// Memory and swap together, as far as the host counts swap.
			"memory.memsw.limit_in_bytes": strconv.FormatInt(memory, 10), "memory.swap.max": "0",
		}},
		{pidsController, processes, []string{"pids.max"}, nil},
	} {
		if x.most <= 0 {
			continue
		}
		dir := ""
		if g != nil {
			dir = g.limited[x.controller]
		}
		if dir == "" {
			failed[x.controller] = fmt.Errorf("no cgroup hierarchy has the %s controller", x.controller)
			continue
		}
		var err error
		for _, f := range x.files {
			if err = writeExisting(filepath.Join(dir, f), strconv.FormatInt(x.most, 10)); err == nil {
				break
			}
		}
		if err != nil {
			failed[x.controller] = err
			continue
		}
		for f, v := range x.also {
			_ = writeExisting(filepath.Join(dir, f), v) // not every kernel counts swap
		}
	}
	return failed
}

// writeExisting writes a file of a control group, which is never made anew.
func writeExisting(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// ranOut tells whether the kernel ended something in the group for want of memory.
func (g *cgroup) ranOut() bool {
	if g == nil {
		return false
	}
	dir := g.limited[memoryController]
	for _, f := range []string{"memory.events", "memory.oom_control"} {
		raw, err := os.ReadFile(filepath.Join(dir, f))
		if dir == "" || err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
				return n != "0"
			}
		}
	}
	return false
}

// remove removes the groups, waiting up to patience for their last process.
func (g *cgroup) remove(patience time.Duration) error {
	var errs []error
	for _, d := range g.all() {
		errs = append(errs, removeGroup(d, patience))
	}
	return errors.Join(errs...)
}

func removeGroup(dir string, patience time.Duration) error {
	until := time.Now().Add(patience)
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(until) {
			return fmt.Errorf("remove control group: %w", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// hierarchies are where control groups are mounted, each by its root.
type hierarchies struct {
	unified string            // the default hierarchy; "": nowhere
	v1      map[string]string // by controller
}

func findHierarchies() (hierarchies, error) {
	found := hierarchies{v1: map[string]string{}}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return found, fmt.Errorf("find the cgroup mounts: %w", err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		// id parent major:minor root mountpoint options ... - type source super
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields, of := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(of) < 3 || fields[3] != "/" {
			continue
		}
		switch of[0] {
		case "cgroup2":
			if found.unified == "" {
				found.unified = fields[4]
			}
		case "cgroup":
			for _, c := range strings.Split(of[2], ",") {
				if found.v1[c] == "" {
					found.v1[c] = fields[4]
				}
			}
		}
	}
	return found, s.Err()
}
