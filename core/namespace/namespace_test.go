package namespace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestEachNamespaceTellsWhoIsInIt(t *testing.T) {
	r := newRig(t)
	a := r.run("a", 10, task{set: but(map[Type]uint64{PID: 20, Net: 21, IPC: 22}), pids: []uint32{10, 1}})
	r.run("b", 11, task{set: but(map[Type]uint64{PID: 30, Net: 21, IPC: 32}), pids: []uint32{11, 1}})
	r.wantIn(PID, 20, "a")
	r.wantIn(Net, 21, "a", "b")
	r.wantIn(IPC, 32, "b")
	r.wantIn(Mount, 902, "a", "b")
	r.wantIn(Net, 901)
	if set, ok := r.Of(ref(a)); !ok || set[PID] != 20 || set[UTS] != hostSet[UTS] {
		t.Errorf("of a: %v, %v", set, ok)
	}
	s, _ := r.Get(ID{PID, 20})
	if want := (Member{ID: id("a"), Name: "a", PID: 10, NSPID: 1}); s.Host || !slices.Equal(s.Containers, []Member{want}) {
		t.Errorf("%+v", s)
	}
	if s, _ := r.Get(ID{Mount, 902}); !s.Host {
		t.Error("the mount namespace of the host is not told to be so")
	}
	var ids []string
	for _, s := range r.List(IPC, PID, Net) {
		ids = append(ids, s.ID.String())
	}
	if want := []string{"pid:20", "pid:30", "net:21", "ipc:22", "ipc:32"}; !slices.Equal(ids, want) {
		t.Errorf("listed are %q, want %q", ids, want)
	}
	if s := r.Stats(); s.Containers != 2 || s.Namespaces != [Types]uint64{PID: 2, Net: 1, Mount: 1, User: 1, UTS: 1, IPC: 2, Cgroup: 1, Time: 1} {
		t.Errorf("%+v", s)
	}
}

func TestAContainerIsReadOnceForEachStart(t *testing.T) {
	r := newRig(t)
	c := r.run("a", 10, task{set: but(map[Type]uint64{Net: 21})})
	reads := func(want uint64) {
		t.Helper()
		if got := r.Stats().Read; got != want {
			t.Errorf("read %d times, want %d", got, want)
		}
	}
	renamed := func(change func(*protov1.Container)) *protov1.Container {
		n := &protov1.Container{Id: c.Id, Name: c.Name, State: c.State, Pid: c.Pid, StartedUnixNano: c.StartedUnixNano}
		change(n)
		return n
	}
	r.apply(described(renamed(func(c *protov1.Container) { c.Name = "new" })))
	r.after(time.Hour)
	reads(1)
	r.wantIn(Net, 21, "new")

	c = renamed(func(c *protov1.Container) { c.State, c.Pid = protov1.Container_STATE_EXITED, 0 })
	r.apply(described(c))
	r.wantIn(Net, 21)
	if _, ok := r.Of(ref(c)); ok {
		t.Error("a container that ended has namespaces")
	}
	r.proc.remove(10)
	r.cgroups[12] = uint64('a')
	r.proc.add(12, task{set: but(map[Type]uint64{Net: 22})})
	r.apply(described(renamed(func(c *protov1.Container) {
		c.State, c.Pid, c.StartedUnixNano = protov1.Container_STATE_RUNNING, 12, time.Now().Add(-time.Second).UnixNano()
	})))
	reads(2)
	r.wantIn(Net, 22, "a")

	r.apply(removed(c))
	r.wantIn(Net, 22)
	if n := len(r.members) + len(r.spaces) + len(r.retries); n != 0 {
		t.Errorf("%d things are kept of containers that are gone", n)
	}
	if s := r.Stats(); s.Containers != 0 || s.Namespaces != [Types]uint64{} {
		t.Errorf("%+v", s)
	}
}

func TestAProcessThatHasTheContainersPidByChanceIsNotTaken(t *testing.T) {
	for _, c := range []struct {
		name  string
		taken bool
		with  func(*rig, *task, *protov1.Container)
	}{
		{"it is in the container's cgroup", true, func(*rig, *task, *protov1.Container) {}},
		{"it is in that of another container", false, func(r *rig, k *task, c *protov1.Container) {
			r.run("d", 99, task{set: hostSet})
			r.cgroups[10] = uint64('d')
		}},
		{"it is in one of the host and younger than the container", false, func(r *rig, k *task, c *protov1.Container) {
			r.cgroups[10] = 7
			k.start = time.Second
		}},
		{"it is in one of the host and a little younger than the container", false, func(r *rig, k *task, c *protov1.Container) {
			r.cgroups[10] = 7
			k.start = 4900 * time.Millisecond
		}},
		{"it is in one of the host and as old as the container", true, func(r *rig, k *task, c *protov1.Container) {
			r.cgroups[10] = 7
			k.start = 20 * time.Second
		}},
		{"it is in one of the host, as old as the container, and has the host's mounts", false, func(r *rig, k *task, c *protov1.Container) {
			r.cgroups[10] = 7
			k.start = 20 * time.Second
			k.set[Mount] = hostSet[Mount]
		}},
		{"it is in one of the host, and the start is told in whole seconds", true, func(r *rig, k *task, c *protov1.Container) {
			r.cgroups[10] = 7
			since := time.Unix(time.Now().Unix()-5, 0)
			c.StartedUnixNano = since.UnixNano()
			k.start = time.Since(since) - time.Second/2
		}},
		{"it is in one that is not known, and nothing is said of the start", false, func(r *rig, k *task, c *protov1.Container) {
			r.cgroups[10] = 0
			c.StartedUnixNano = 0
		}},
		{"another hierarchy names it", true, func(r *rig, k *task, c *protov1.Container) {
			r.cgroups[10] = 7
			k.cgroups = "9:memory:/x/crio-" + c.Id + ".scope/below\n0::/\n"
			c.StartedUnixNano = 0
		}},
		{"another hierarchy has the path that its source told", true, func(r *rig, k *task, c *protov1.Container) {
			r.cgroups[10] = 7
			k.cgroups = "9:memory:/x/web\n0::/\n"
			c.CgroupPath = "/x/web"
			c.StartedUnixNano = 0
		}},
		{"another hierarchy names another", false, func(r *rig, k *task, c *protov1.Container) {
			r.cgroups[10] = 7
			k.cgroups = "9:memory:/x/" + id("b") + "\n0::/\n"
			k.start = time.Second
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.inventory.CgroupCreated(1, "/docker/"+id("a"), time.Now())
			r.inventory.CgroupCreated(7, "/ssh.service", time.Now())
			d := &protov1.Container{Id: id("a"), Name: "a", Pid: 10, StartedUnixNano: time.Now().Add(-5 * time.Second).UnixNano()}
			k := task{set: but(map[Type]uint64{Net: 21, Mount: 22}), start: 5 * time.Second}
			r.cgroups[10] = 1
			c.with(r, &k, d)
			r.proc.add(10, k)
			r.apply(described(d))
			if _, taken := r.Of(ref(d)); taken != c.taken {
				t.Errorf("taken: %v", taken)
			}
			if s := r.Stats(); (s.Others == 0) != c.taken {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestWhatCanNotBeReadYetIsReadLater(t *testing.T) {
	r := newRig(t)
	r.inventory.CgroupCreated(1, "/docker/"+id("a"), time.Now())
	c := &protov1.Container{Id: id("a"), Name: "a", Pid: 10, State: protov1.Container_STATE_RUNNING}
	r.apply(described(c))
	if _, ok := r.Of(ref(c)); ok {
		t.Fatal("it was read without a process")
	}
	r.cgroups[10] = 1
	r.proc.add(10, task{set: but(map[Type]uint64{User: 50}), uids: "\n"})
	r.after(firstRetry)
	if _, ok := r.Of(ref(c)); ok {
		t.Fatal("it was read before its user ids were mapped")
	}
	r.proc.remove(10)
	r.proc.add(10, task{set: but(map[Type]uint64{User: 50}), uids: "0 100000 65536\n"})
	r.after(firstRetry)
	if _, ok := r.Of(ref(c)); ok {
		t.Error("it was read although its time had not come")
	}
	r.after(firstRetry)
	if _, ok := r.Of(ref(c)); !ok || len(r.retries) != 0 {
		t.Errorf("it was not read when its time had come, or is to be again: %v", r.retries)
	}
}

func TestAFirstProcessThatIsGoneIsNoticedWithoutTheRuntimesWord(t *testing.T) {
	r := newRig(t)
	c := r.run("a", 10, task{set: but(map[Type]uint64{Net: 21})})
	r.run("b", 11, task{set: but(map[Type]uint64{Net: 31})})
	r.proc.remove(10)
	r.proc.add(10, task{set: but(map[Type]uint64{Net: 41}), start: -time.Second}) // another's, of the host
	r.cgroups[10] = 0
	for range round {
		r.after(time.Second)
	}
	if _, ok := r.Of(ref(c)); ok {
		t.Error("the container still has its namespaces, or those of another process")
	}
	r.wantIn(Net, 21)
	r.wantIn(Net, 41)
	r.wantIn(Net, 31, "b")
}

func TestAContainerWhosePidNobodyTellsIsReadByItsCgroup(t *testing.T) {
	r := newRig(t)
	root := t.TempDir()
	dir := filepath.Join(root, "docker", id("a"))
	check(t, os.MkdirAll(filepath.Join(dir, "below"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0\n12\n10\n"), 0o644))
	check(t, os.WriteFile(filepath.Join(dir, "below", "cgroup.procs"), []byte("13\n"), 0o644))
	_, err := r.inventory.Scan(root)
	check(t, err)
	c := &protov1.Container{Id: id("a"), Name: "a", Pid: 4} // 4 is another's, of another pid namespace
	r.proc.add(10, task{set: but(map[Type]uint64{Net: 21}), pids: []uint32{10, 1}})
	r.proc.add(12, task{set: but(map[Type]uint64{Net: 22}), pids: []uint32{12, 7}, start: 2 * time.Second})
	r.proc.add(13, task{set: but(map[Type]uint64{Net: 23}), pids: []uint32{13, 8}, start: 3 * time.Second})
	r.proc.add(4, task{set: hostSet, start: 9 * time.Second})
	check(t, r.inventory.Apply("docker", []*protov1.InventoryChange{described(c)}))
	v, _ := r.inventory.Get(ref(c))
	for _, pid := range []uint32{10, 12, 13} {
		r.cgroups[pid] = v.CgroupIDs[0]
	}
	r.drain()
	r.wantIn(Net, 21, "a")
	if s, _ := r.Get(ID{Net, 21}); len(s.Containers) == 1 && s.Containers[0].PID != 10 {
		t.Errorf("its first process is %+v", s.Containers[0])
	}
	// Without a first one of its pid namespace, the oldest.
	r.proc.remove(10)
	r.apply(removed(c))
	check(t, r.inventory.Apply("docker", []*protov1.InventoryChange{described(c)}))
	r.drain()
	r.wantIn(Net, 23, "a")
	if host, err := r.HostPID(ref(c), 7); err != nil || host != 12 {
		t.Errorf("process 7 of the container is %d on the host, %v", host, err)
	}
}

func TestMoreChangesThanHaveRoomAreNotLost(t *testing.T) {
	r := newRig(t)
	r.queue = make(chan key, 3)
	const all = 5
	var changes []*protov1.InventoryChange
	for i := range uint32(all) {
		c := &protov1.Container{Id: fmt.Sprint(i), Scope: "s", Pid: i + 10}
		changes = append(changes, described(c))
		r.proc.add(c.Pid, task{set: but(map[Type]uint64{Mount: 22})})
	}
	check(t, r.inventory.Apply("containerd", changes))
	r.drain()
	if n := r.Stats().Containers; n != 3 {
		t.Errorf("the queue had room for %d: the test proves nothing", n)
	}
	r.after(time.Second)
	if s := r.Stats(); s.Missed != 1 || s.Containers != all {
		t.Errorf("%+v", s)
	}
	// Nor is an end.
	for i, c := range changes {
		changes[i] = removed(c.GetContainer())
	}
	check(t, r.inventory.Apply("containerd", changes))
	r.after(time.Second)
	r.drain()
	if n := len(r.members) + len(r.spaces) + len(r.retries); n != 0 || r.Stats().Missed != 2 {
		t.Errorf("%d things are kept of containers that are gone; %+v", n, r.Stats())
	}
}

func TestRunReadsWhatIsThereAndWhatComes(t *testing.T) {
	inv := inventory.New(inventory.Options{})
	host, err := FindHost("/proc")
	check(t, err)
	own, err := namespacesOf("/proc", "self")
	check(t, err)
	self := func(name string) *protov1.Container {
		return &protov1.Container{Id: id(name), Name: name, Pid: uint32(os.Getpid())}
	}
	if own[Mount] == host.Set[Mount] { // else this process is none that could be a container's
		host.Set[Mount] = 1
	}
	n := New(Options{Inventory: inv, Host: host, Monotonic: func() uint64 { return 1 }})
	check(t, inv.Apply("docker", []*protov1.InventoryChange{described(self("a"))}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Run(ctx)
	}()
	wait := func(c *protov1.Container, want bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			set, ok := n.Of(ref(c))
			if ok == want {
				if want && set != own {
					t.Errorf("%s is in %v, want %v", c.Name, set, own)
				}
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is known: %v", c.Name, ok)
			}
		}
	}
	wait(self("a"), true)
	check(t, inv.Apply("docker", []*protov1.InventoryChange{described(self("b"))}))
	wait(self("b"), true)
	check(t, inv.Apply("docker", []*protov1.InventoryChange{removed(self("a"))}))
	wait(self("a"), false)
	cancel()
	<-done
}

func TestTheHostsNamespacesAreThoseOfItsFirstProcess(t *testing.T) {
	container := but(map[Type]uint64{Net: 21, Mount: 22, UTS: 23, PID: 24})
	for _, c := range []struct {
		name  string
		own   Set
		pid1  Set
		pid2  Set
		want  Set
		doubt string
	}{
		{"as a rule", but(map[Type]uint64{Net: 21}), hostSet, but(map[Type]uint64{Mount: 1}), hostSet, ""},
		{"when that can't be read, of a kernel thread", but(map[Type]uint64{Net: 21}), Set{}, hostSet, hostSet, ""},
		{"in a pid namespace of its own", container, container, container, but(map[Type]uint64{Net: 21, Mount: 22}),
			"the net and mnt namespaces of this process are taken for the host's"},
		{"when none can be read", but(map[Type]uint64{Net: 21, IPC: 22}), Set{}, Set{}, but(map[Type]uint64{Net: 21}),
			"the net and mnt namespaces of this process"},
		{"on a kernel without time namespaces", but(map[Type]uint64{Time: 0}), Set{}, Set{}, but(map[Type]uint64{Time: 0}), "net and mnt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := proc{t, t.TempDir()}
			p.add(77, task{set: c.own})
			check(t, os.Symlink("77", filepath.Join(p.dir, "self")))
			for pid, set := range map[uint32]Set{1: c.pid1, 2: c.pid2} {
				p.add(pid, task{set: set})
			}
			h, err := FindHost(p.dir)
			check(t, err)
			if h.Set != c.want {
				t.Errorf("%v, want %v", h.Set, c.want)
			}
			if (h.Doubt == "") != (c.doubt == "") || !contains(h.Doubt, c.doubt) {
				t.Errorf("the doubt is %q", h.Doubt)
			}
		})
	}
	if _, err := FindHost(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without /proc: %v", err)
	}
}
