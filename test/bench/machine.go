package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// groups are the control groups of a run on the default hierarchy. CPU time is read
// from cpu.stat there: the scheduler's own sum in nanoseconds, rounded to
// microseconds, of all threads, those that ended included. It needs no controller.
type groups struct {
	root string // the hierarchy's mount
	own  string // of this run
}

func newGroups() (*groups, error) {
	root, err := defaultHierarchy()
	if err != nil {
		return nil, err
	}
	g := &groups{root: root, own: filepath.Join(root, fmt.Sprintf("ebpf-tracer-bench-%d", os.Getpid()))}
	if err := os.Mkdir(g.own, 0o755); err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	return g, nil
}

func defaultHierarchy() (string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", fmt.Errorf("find the cgroup2 mount: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1], nil
		}
	}
	return "", errors.New("no cgroup2 hierarchy is mounted: CPU time can't be measured")
}

func (g *groups) close() error {
	var err error
	for range 100 {
		if err = os.Remove(g.own); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		time.Sleep(10 * time.Millisecond) // the last process is being reaped
	}
	return fmt.Errorf("remove the control group: %w", err)
}

// plugins are the groups in which a daemon put its plugins, by plugin name.
func (g *groups) plugins(daemon int) (map[string]string, error) {
	hosts, err := filepath.Glob(filepath.Join(g.root, "ebpf-tracer", fmt.Sprintf("*-%d-*", daemon)))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, host := range hosts {
		entries, err := os.ReadDir(host)
		if err != nil {
			return nil, fmt.Errorf("list the plugins' control groups: %w", err)
		}
		for _, e := range entries {
			if name, _, ok := strings.Cut(e.Name(), "."); ok && e.IsDir() {
				if pids, err := groupPIDs(filepath.Join(host, e.Name())); err == nil && len(pids) > 0 {
					out[name] = filepath.Join(host, e.Name())
				}
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the daemon's plugins have no control groups: their CPU time can't be told")
	}
	return out, nil
}

func groupPIDs(group string) (pids []int, err error) {
	b, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	for _, f := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// cpu is the CPU time used in a group so far.
func cpu(group string) (time.Duration, error) {
	b, err := os.ReadFile(filepath.Join(group, "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
			usec, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return time.Duration(usec) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("read CPU time: %s/cpu.stat has no usage_usec", group)
}

// kib reads fields in KiB of a file below /proc such as VmRSS, as MiB.
func kib(pid int, file string, names ...string) ([]float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return nil, fmt.Errorf("read memory: %w", err)
	}
	out := make([]float64, len(names))
	for i, name := range names {
		_, rest, ok := strings.Cut(string(b), "\n"+name+":")
		if fields := strings.Fields(rest); ok && len(fields) > 0 {
			n, err := strconv.ParseFloat(fields[0], 64)
			if err != nil {
				return nil, fmt.Errorf("read memory: %w", err)
			}
			out[i] = n / 1024
			continue
		}
		return nil, fmt.Errorf("read memory: /proc/%d/%s has no %s", pid, file, name)
	}
	return out, nil
}
