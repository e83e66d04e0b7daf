package thirdparty

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// hierarchy is the default cgroup hierarchy, and a directory on it that is this test's.
type hierarchy struct {
	t    *testing.T
	root string // where it is mounted
	top  string // the test's, from the hierarchy's root
}

func newHierarchy(t *testing.T) hierarchy {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(mounts), "\n") {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			h := hierarchy{t, f[1], fmt.Sprintf("/thirdparty%d.slice", os.Getpid())}
			h.make(h.top)
			return h
		}
	}
	t.Fatal("the default cgroup hierarchy is not mounted: these tests need it")
	return hierarchy{}
}

// make makes a cgroup, which is gone again when the test ends.
func (h hierarchy) make(path string) string {
	h.t.Helper()
	if err := os.Mkdir(filepath.Join(h.root, path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { h.remove(path) })
	return path
}

// remove takes a cgroup off, if it is there.
func (h hierarchy) remove(path string) {
	h.t.Helper()
	at := filepath.Join(h.root, path)
	err := os.Remove(at)
	for deadline := time.Now().Add(10 * time.Second); errors.Is(err, syscall.EBUSY) && time.Now().Before(deadline); err = os.Remove(at) {
		time.Sleep(5 * time.Millisecond) // the last process is not quite gone
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Errorf("remove a cgroup: %v", err)
	}
}

// load runs a program n times in a cgroup, with an argument to know it by.
func (h hierarchy) load(p *load.Programs, path string, n int, tag string) {
	h.t.Helper()
	script := `echo $$ >"$0/cgroup.procs" && exec "$@"`
	c := exec.Command("/bin/sh", "-c", script, filepath.Join(h.root, path), p.Exec, "-n", fmt.Sprint(n), "-a", tag, p.Noop)
	if out, err := c.CombinedOutput(); err != nil {
		h.t.Fatalf("run the load in %s: %v: %s", path, err, out)
	}
}
