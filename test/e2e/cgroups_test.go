package e2e

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cgroupRoot is where the default hierarchy is mounted.
func cgroupRoot(t *testing.T) string {
	t.Helper()
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	defer mounts.Close()
	for s := bufio.NewScanner(mounts); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	t.Fatal("the default cgroup hierarchy is not mounted: these tests need it")
	return ""
}

// findCgroup finds the cgroup of a container on the default hierarchy.
func findCgroup(t *testing.T, id string) (found string) {
	t.Helper()
	err := filepath.WalkDir(cgroupRoot(t), func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // gone meanwhile
		case err != nil:
			return err
		case e.IsDir() && e.Name() == id:
			found = path
			return fs.SkipAll
		}
		return nil
	})
	if err != nil || found == "" {
		t.Fatalf("find the cgroup of container %s: %v", id, err)
	}
	return found
}

// makeCgroup makes a cgroup, with those above it that are missing, and takes off again
// what it made.
func makeCgroup(t *testing.T, dir string) string {
	t.Helper()
	var made []string
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); err == nil {
			break
		}
		made = append(made, at)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, at := range made {
			err := os.Remove(at)
			for deadline := time.Now().Add(10 * time.Second); errors.Is(err, syscall.EBUSY) && time.Now().Before(deadline); err = os.Remove(at) {
				time.Sleep(10 * time.Millisecond) // the last process is not quite gone
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("remove a cgroup: %v", err)
			}
		}
	})
	return dir
}

// runIn runs a program in a cgroup.
func runIn(t *testing.T, cgroup string, argv ...string) {
	t.Helper()
	script := `echo $$ >"$0/cgroup.procs" && exec "$@"`
	if out, err := exec.Command("/bin/sh", append([]string{"-c", script, cgroup}, argv...)...).CombinedOutput(); err != nil {
		t.Fatalf("run %q in %s: %v: %s", argv, cgroup, err, out)
	}
}

// randomID is what a container might be called.
func randomID(t *testing.T) string {
	t.Helper()
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}
