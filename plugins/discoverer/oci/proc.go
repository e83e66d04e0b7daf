package main

import (
	"bytes"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
)

// proc is the host's /proc; "": the operator did not grant it. The one that a plugin
// has of itself shows its own processes, whose numbers mean others on the host.
type proc string

// newProc uses a /proc when it is that of other processes than the plugin's own.
func newProc(dir string) proc {
	if dir == "" {
		return ""
	}
	// In its own pid namespace the plugin is the first process.
	self, err := os.Readlink(path.Join(dir, "self"))
	if err != nil || self == strconv.Itoa(os.Getpid()) && os.Getpid() == 1 {
		return ""
	}
	return proc(dir)
}

func (p proc) read(pid uint32, name string, most int64) ([]byte, error) {
	f, err := os.Open(path.Join(string(p), strconv.FormatUint(uint64(pid), 10), name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

// alive tells whether a process runs that began at start, in clock ticks since boot; 0:
// whenever. One that has ended and is not waited for does not.
func (p proc) alive(pid uint32, start uint64) bool {
	raw, err := p.read(pid, "stat", 4096)
	if err != nil {
		return false
	}
	// The name, in brackets, may hold anything.
	f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	const state, began = 0, 19
	if len(f) <= began || f[state] == "Z" || f[state] == "X" {
		return false
	}
	n, err := strconv.ParseUint(f[began], 10, 64)
	return err == nil && (start == 0 || n == start)
}

// args are the arguments of a process, as far as a description takes them.
func (p proc) args(pid uint32) []string {
	raw, err := p.read(pid, "cmdline", 2*describe.MaxWords)
	if err != nil || len(raw) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
}

// cgroup is the path of a process on the default hierarchy; "": not known.
func (p proc) cgroup(pid uint32) string {
	raw, err := p.read(pid, "cgroup", 64<<10)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(raw)) {
		if at, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::/"); ok && at != "" && !strings.HasPrefix(at, "..") && len(at) < describe.MaxName {
			return "/" + at
		}
	}
	return ""
}
