package inventory

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestACgroupThatIsRemovedWhileAScanFindsItIsNotThere(t *testing.T) {
	root := t.TempDir()
	short, long := filepath.Join(root, "short"), filepath.Join(root, "long")
	for _, dir := range []string{short, long} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	i := New(Options{})
	stop := i.Observe(Observer{Cgroup: func(f *protov1.HostFact, _ bool) {
		// The scan has found it; the kernel's word of its end came before that.
		if f.GetCgroup().GetPath() == "/short" && f.GetCgroup().GetChange() == protov1.CgroupFact_CHANGE_CREATED {
			if err := os.Remove(short); err != nil {
				t.Error(err)
			}
		}
	}})
	defer stop()
	if _, err := i.Scan(root); err != nil {
		t.Fatal(err)
	}
	for _, f := range i.Cgroups() {
		if f.GetCgroup().GetPath() == "/short" {
			t.Error("the cgroup that is gone stays")
		}
	}
	if n := i.Stats().Cgroups; n != 2 { // the root and the long one
		t.Errorf("%d cgroups", n)
	}
}

func TestAScanOfADirectoryThatIsNotThereIsAnError(t *testing.T) {
	if _, err := New(Options{}).Scan(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no error")
	}
}

// cgroup makes a cgroup of the default hierarchy, and gives its path and id.
func cgroup(t *testing.T, root, name string) (dir string, id uint64) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make cgroups")
	}
	dir = filepath.Join(root, fmt.Sprintf("ebpf-tracer-test-%d-%s", os.Getpid(), name))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	})
	id, err := inodeOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir, id
}

func hierarchy(t *testing.T) string {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestAScanFindsThatACgroupIsGoneWhoseEndWasLost(t *testing.T) {
	root := hierarchy(t)
	dir, id := cgroup(t, root, "lost")
	i := New(Options{})
	if _, err := i.Scan(root); err != nil {
		t.Fatal(err)
	}
	if got := i.Lookup(id); got == nil || !got.removed.IsZero() {
		t.Fatalf("the scan did not find it: %v", got)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Scan(root); err != nil {
		t.Fatal(err)
	}
	if i.Lookup(id).removed.IsZero() {
		t.Error("it is taken to be there")
	}
	// Neither of its news found room in the queue.
	short, _ := i.cgroups.add(1<<60, "/never-seen")
	if _, err := i.Scan(root); err != nil {
		t.Fatal(err)
	}
	if short.removed.IsZero() {
		t.Error("one that came and went unnoticed is remembered for ever")
	}
}

func TestTheCgroupOfAProcessIsFoundByItsInodeWhateverItsPathIsCalled(t *testing.T) {
	root := hierarchy(t)
	dir, id := cgroup(t, root, "process")
	fd, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	process := exec.Command("sleep", "60")
	process.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd()), Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := process.Process.Kill(); err != nil {
			t.Error(err)
		}
		if err := process.Wait(); err == nil {
			t.Error("it ended by itself")
		}
	}()
	i := New(Options{})
	// The kernel names it from the hierarchy's root, which a daemon in a cgroup
	// namespace of its own does not see.
	i.CgroupCreated(id, "/outer"+dir[len(root):], time.Now())
	if _, err := i.Scan(root); err != nil {
		t.Fatal(err)
	}
	g, err := i.OfPID(uint32(process.Process.Pid))
	if err != nil || g == nil || g.ID != id {
		t.Errorf("found %v, %v", g, err)
	}
}

func TestTheCgroupOfAProcessIsFoundByItsPathBeforeAScan(t *testing.T) {
	root := hierarchy(t)
	dir, _ := cgroup(t, root, "path")
	i := New(Options{})
	i.CgroupCreated(77, dir[len(root):], time.Now())
	if g := i.byPath(dir[len(root):]); g == nil || g.ID != 77 {
		t.Errorf("found %v", g)
	}
	i.CgroupRemoved(77, time.Now())
	if g := i.byPath(dir[len(root):]); g != nil {
		t.Errorf("found %v, which is gone", g)
	}
}

func TestWithoutTheDefaultHierarchyAllProcessesAreInItsRoot(t *testing.T) {
	i := New(Options{})
	i.RootAlone()
	checkNames(t, i, "", []uint64{rootInode}, "host")
}
