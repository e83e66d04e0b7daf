package namespace

import (
	"os"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// whose is the name of the container that an event is of, by its pid namespace.
func (r *rig) whose(e event.Event) string {
	w := r.ByPID(&e)
	if w == nil {
		return ""
	}
	return w.Container.GetName()
}

func (r *rig) want(name string, e event.Event) {
	r.t.Helper()
	if got := r.whose(e); got != name {
		r.t.Errorf("%+v is %q's, want %q", e, got, name)
	}
}

func TestAPidNamespaceGivesItsOneContainerOrNobody(t *testing.T) {
	r := newRig(t)
	r.run("a", 10, task{set: but(map[Type]uint64{PID: 20}), pids: []uint32{10, 1}})
	r.run("c", 11, task{set: hostSet})
	r.want("a", event.Event{PIDNS: 20})
	r.want("", event.Event{PIDNS: uint32(hostSet[PID])}) // that a container uses the host's
	if r.table.get(uint32(hostSet[PID])) != nil {
		t.Error("the host's pid namespace has an owner")
	}
	r.want("", event.Event{PIDNS: 21}) // made inside of one, perhaps
	r.want("", event.Event{})

	r.apply(described(&protov1.Container{Id: id("a"), Name: "renamed", Pid: 10}))
	r.want("renamed", event.Event{PIDNS: 20})

	sharer := r.run("d", 12, task{set: but(map[Type]uint64{PID: 20}), pids: []uint32{12, 7}})
	r.want("", event.Event{PIDNS: 20})
	r.apply(removed(sharer))
	r.want("renamed", event.Event{PIDNS: 20})
}

func TestAPidNamespaceIsNobodysOnceItsFirstProcessIsGone(t *testing.T) {
	r := newRig(t)
	r.monotonic = 1000
	c := r.run("a", 10, task{set: but(map[Type]uint64{PID: 20}), pids: []uint32{10, 1}})
	r.want("a", event.Event{PIDNS: 20, StartNS: 900})
	r.want("a", event.Event{PIDNS: 20, StartNS: 1500, Kind: event.ProcessExit, NSPID: 4, TimeNS: 1900})
	r.want("a", event.Event{PIDNS: 20, StartNS: 1950}) // that was not its first process
	r.want("a", event.Event{PIDNS: 20, StartNS: 900, Kind: event.ProcessExit, NSPID: 1, TimeNS: 2000})
	// What the kernel ends with it is its own, the next namespace of that inode is not.
	r.want("a", event.Event{PIDNS: 20, StartNS: 1600, Kind: event.ProcessExit, TimeNS: 2001})
	r.want("", event.Event{PIDNS: 20, StartNS: 2010})
	r.want("", event.Event{PIDNS: 20})

	r.apply(removed(c))
	r.want("a", event.Event{PIDNS: 20, StartNS: 1600})
	r.run("b", 11, task{set: but(map[Type]uint64{PID: 20}), pids: []uint32{11, 1}})
	r.want("b", event.Event{PIDNS: 20, StartNS: 2010})
	r.after(grace)
	r.want("b", event.Event{PIDNS: 20, StartNS: 2010})
}

func TestAPidNamespaceWhoseEndWasNotSeenKeepsWhatIsSurelyItsOwn(t *testing.T) {
	r := newRig(t)
	r.monotonic = 1000
	c := r.run("a", 10, task{set: but(map[Type]uint64{PID: 20}), pids: []uint32{10, 1}})
	r.monotonic = 5000
	r.after(time.Second) // it is still there
	r.monotonic = 9000
	r.apply(removed(c))
	r.want("a", event.Event{PIDNS: 20, StartNS: 4999})
	r.want("", event.Event{PIDNS: 20, StartNS: 5001}) // it may be another's by now
	r.after(grace)
	r.want("", event.Event{PIDNS: 20, StartNS: 900})
}

func TestFindingAContainerByItsPidNamespaceAllocatesNothing(t *testing.T) {
	r := newRig(t)
	r.run("a", 10, task{set: but(map[Type]uint64{PID: 20}), pids: []uint32{10, 1}})
	e := event.Event{PIDNS: 20, StartNS: 1}
	if n := testing.AllocsPerRun(100, func() {
		if r.ByPID(&e) == nil {
			t.Error("it was not found")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkByPID is what the pipeline pays for an event that no cgroup gives to
// anybody: of a container, of the host, of a pid namespace that is nobody's.
func BenchmarkByPID(b *testing.B) {
	inv := inventory.New(inventory.Options{})
	n := New(Options{Inventory: inv, Host: Host{Set: hostSet}, Monotonic: func() uint64 { return 1 }})
	const containers = 1000
	for i := range uint32(containers) {
		c := &protov1.Container{Id: string(rune('a' + i)), Scope: "s"}
		if err := inv.Apply("docker", []*protov1.InventoryChange{described(c)}); err != nil {
			b.Fatal(err)
		}
		v, _ := inv.Get(ref(c))
		n.link(&member{key: key{"s", c.Id}, handle: v.Handle(), set: but(map[Type]uint64{PID: uint64(0xF0000000 + i)})}, nil, nil)
	}
	for _, c := range []struct {
		name string
		of   func(i uint32) uint32
	}{
		{"container", func(i uint32) uint32 { return 0xF0000000 + i%containers }},
		{"host", func(uint32) uint32 { return uint32(hostSet[PID]) }},
		{"nobody", func(i uint32) uint32 { return 0xF0100000 + i%containers }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			e := event.Event{StartNS: 1}
			var i uint32
			for b.Loop() {
				e.PIDNS = c.of(i)
				n.ByPID(&e)
				i++
			}
		})
	}
}

// BenchmarkReading is what one container costs, once for each of its starts.
func BenchmarkReading(b *testing.B) {
	inv := inventory.New(inventory.Options{})
	host, err := FindHost("/proc")
	if err != nil {
		b.Fatal(err)
	}
	host.Set[Mount], host.Set[User] = 1, 1 // as if this process were a container's
	n := New(Options{Inventory: inv, Host: host, Monotonic: func() uint64 { return 1 }})
	c := &protov1.Container{Id: id("a"), Pid: uint32(os.Getpid())}
	if err := inv.Apply("docker", []*protov1.InventoryChange{described(c)}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		n.forget(key{id: c.Id})
		n.look(key{id: c.Id})
	}
	if n.Stats().Containers != 1 {
		b.Fatal("it was not read")
	}
}
