package namespace

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// hostSet is the host's namespaces in these tests.
var hostSet = Set{PID: 0xEFFFFFFC, Net: 901, Mount: 902, User: 0xEFFFFFFD, UTS: 0xEFFFFFFE, IPC: 0xEFFFFFFF, Cgroup: 0xEFFFFFFB, Time: 0xEFFFFFFA}

// but is the host's namespaces with others of some types.
func but(other map[Type]uint64) Set {
	s := hostSet
	for t, inode := range other {
		s[t] = inode
	}
	return s
}

// proc is a directory that looks like /proc.
type proc struct {
	t   *testing.T
	dir string
}

// task is a process in it.
type task struct {
	pids    []uint32      // by default its pid alone
	start   time.Duration // before now
	set     Set
	uids    string
	cgroups string
	comm    string
}

func (p proc) add(pid uint32, k task) {
	p.t.Helper()
	if k.pids == nil {
		k.pids = []uint32{pid}
	}
	if k.uids == "" {
		k.uids = "         0          0 4294967295\n"
	}
	dir := filepath.Join(p.dir, fmt.Sprint(pid))
	check(p.t, os.MkdirAll(filepath.Join(dir, "ns"), 0o755))
	for t, inode := range k.set {
		if inode != 0 {
			check(p.t, os.Symlink(fmt.Sprintf("%v:[%d]", Type(t), inode), filepath.Join(dir, "ns", Type(t).String())))
		}
	}
	var boot unix.Timespec
	check(p.t, unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot))
	ticks := (time.Duration(boot.Nano()) - k.start) / clockTick
	pids := strings.Trim(fmt.Sprint(k.pids), "[]")
	for name, text := range map[string]string{
		"stat":    fmt.Sprintf("%d (a) b) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0\n", pid, ticks),
		"status":  fmt.Sprintf("Name:\tx\nUid:\t1000\t100000\t1000\t1000\nGid:\t0\t100005\t0\t0\nNSpid:\t%s\n", strings.ReplaceAll(pids, " ", "\t")),
		"uid_map": k.uids, "gid_map": k.uids, "cgroup": k.cgroups, "comm": k.comm + "\n",
	} {
		check(p.t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
}

func (p proc) remove(pid uint32) {
	p.t.Helper()
	check(p.t, os.RemoveAll(filepath.Join(p.dir, fmt.Sprint(pid))))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a Namespaces whose goroutine is the test's.
type rig struct {
	*Namespaces
	t         *testing.T
	inventory *inventory.Inventory
	proc      proc
	cgroups   map[uint32]uint64 // of processes; 0: none that is known
	now       time.Time
	monotonic uint64
}

func newRig(t *testing.T) *rig {
	r := &rig{
		t: t, inventory: inventory.New(inventory.Options{}), proc: proc{t, t.TempDir()},
		cgroups: map[uint32]uint64{}, now: time.Unix(1_700_000_000, 0),
	}
	r.Namespaces = New(Options{
		Inventory: r.inventory, Host: Host{Set: hostSet}, Proc: r.proc.dir,
		Monotonic: func() uint64 { return r.monotonic },
		OfPID:     func(pid uint32) (*inventory.Cgroup, error) { return r.inventory.Lookup(r.cgroups[pid]), nil },
		Now:       func() time.Time { return r.now },
	})
	t.Cleanup(r.inventory.Observe(inventory.Observer{Workload: r.changed}))
	return r
}

func (r *rig) apply(changes ...*protov1.InventoryChange) {
	r.t.Helper()
	check(r.t, r.inventory.Apply("docker", changes))
	r.drain()
}

// drain looks at what is queued.
func (r *rig) drain() {
	for len(r.queue) > 0 {
		r.look(<-r.queue)
	}
}

// after lets time pass, with a tick at its end.
func (r *rig) after(d time.Duration) {
	r.now = r.now.Add(d)
	r.tick()
}

// id is a container's.
func id(c string) string { return strings.Repeat(c, 64) }

// run describes a running container, started some seconds ago, and gives it a cgroup.
func (r *rig) run(name string, pid uint32, k task) *protov1.Container {
	r.t.Helper()
	cgroup := uint64(name[0])
	r.inventory.CgroupCreated(cgroup, "/docker/"+id(name[:1]), time.Now())
	r.cgroups[pid] = cgroup
	r.proc.add(pid, k)
	c := &protov1.Container{
		Id: id(name[:1]), Name: name, State: protov1.Container_STATE_RUNNING, Pid: pid,
		StartedUnixNano: time.Now().Add(-5 * time.Second).UnixNano(),
	}
	r.apply(described(c))
	return c
}

func described(c *protov1.Container) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: c}}
}

func removed(c *protov1.Container) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Removed{Removed: &protov1.Removed{
		What: &protov1.Removed_Container{Container: &protov1.ContainerRef{Id: c.GetId(), Scope: c.GetScope()}}}}}
}

func ref(c *protov1.Container) *protov1.ContainerRef {
	return &protov1.ContainerRef{Id: c.GetId(), Scope: c.GetScope()}
}

// in are the names of the containers in a namespace.
func (r *rig) in(t Type, inode uint64) []string {
	s, ok := r.Get(ID{t, inode})
	if !ok {
		return nil
	}
	var names []string
	for _, m := range s.Containers {
		names = append(names, m.Name)
	}
	return names
}

func (r *rig) wantIn(t Type, inode uint64, names ...string) {
	r.t.Helper()
	if got := r.in(t, inode); !slices.Equal(got, names) {
		r.t.Errorf("in %v are %q, want %q", ID{t, inode}, got, names)
	}
}
