package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// process is one process, told from a later one of the same pid by its start.
type process struct {
	pid, parent int
	start       string
	exe         string // "": a kernel thread, or gone meanwhile
}

func readProcess(pid int) (p process, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, err
	}
	// the command, in brackets, may hold anything
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(f) < 20 {
		return p, fmt.Errorf("read /proc/%d/stat: too few fields", pid)
	}
	if f[0] == "Z" || f[0] == "X" {
		return p, os.ErrProcessDone
	}
	p = process{pid: pid, start: f[19]}
	if p.parent, err = strconv.Atoi(f[1]); err != nil {
		return p, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil {
		p.exe = strings.TrimSuffix(exe, " (deleted)")
	}
	return p, nil
}

func (p process) alive() bool {
	now, err := readProcess(p.pid)
	return err == nil && now.start == p.start
}

// descendants are the living children of a process and theirs.
func descendants(pid int) ([]process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	children := map[int][]process{}
	for _, dir := range dirs {
		n, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if p, err := readProcess(n); err == nil { // else it is gone
			children[p.parent] = append(children[p.parent], p)
		}
	}
	var out []process
	for todo := []int{pid}; len(todo) > 0; todo = todo[1:] {
		for _, p := range children[todo[0]] {
			out = append(out, p)
			todo = append(todo, p.pid)
		}
	}
	return out, nil
}

// controlGroups are those of the plugins of a daemon, which is known by its pid.
func controlGroups(pid int) ([]string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return filepath.Glob(filepath.Join(f[1], "ebpf-tracer", fmt.Sprintf("*-%d-*", pid)))
		}
	}
	return nil, nil // without the default hierarchy there are none
}
