package pipeline

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// sheet writes down what was released: "exec web", "exit pending".
type sheet struct {
	lines   []string
	flushes int
}

func (s *sheet) Export(e *event.Event, a Attribution) {
	who := "host"
	if a.Workload != nil {
		who = a.Workload.Container.GetName()
	} else if a.Pending {
		who = "pending"
	}
	what := e.Kind.String()
	if e.Kind == event.ProcessExec {
		what = string(e.Exec.Path)
	}
	s.lines = append(s.lines, what+" "+who)
}

func (s *sheet) Flush() { s.flushes++ }

func (s *sheet) Congested() bool { return false }

type rig struct {
	*Pipeline
	sheet     *sheet
	inventory *inventory.Inventory
	now       time.Duration
	unknown   int
}

func newRig(perCgroup, total int) *rig {
	r := &rig{sheet: &sheet{}, inventory: inventory.New(inventory.Options{})}
	r.Pipeline = New(Options{
		Inventory: r.inventory, Exporters: []Exporter{r.sheet},
		Hold: 500 * time.Millisecond, HoldCgroup: perCgroup, HoldTotal: total,
		Unknown:   func() { r.unknown++ },
		Monotonic: func() uint64 { return uint64(r.now) },
		Wall:      func(monotonic uint64) time.Time { return time.Unix(0, int64(monotonic)) },
	})
	return r
}

var containerID = strings.Repeat("c", 64)

func (r *rig) describe(t *testing.T, id, name string) {
	t.Helper()
	if err := r.inventory.Apply("docker", []*protov1.InventoryChange{{
		Change: &protov1.InventoryChange_Container{Container: &protov1.Container{Id: id, Name: name}},
	}}); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) created(id uint64, path string) {
	r.Record(cgroupRecord(event.CgroupCreate, id, path))
	r.sheet.lines = nil
}

func (r *rig) exec(cgroup uint64, name string) { r.Record(execRecord(cgroup, name+"\x00", "")) }

func (r *rig) check(t *testing.T, want ...string) {
	t.Helper()
	if fmt.Sprint(r.sheet.lines) != fmt.Sprint(want) {
		t.Errorf("released %q, want %q", r.sheet.lines, want)
	}
	s := r.Stats()
	if s.Decoded+s.Injected != s.Released+s.Held || s.Released != s.Host+s.Container+s.Pending {
		t.Errorf("the ledger does not close: %+v", s)
	}
}

func TestTheFirstEventsOfAContainerWaitForItsNameInOrder(t *testing.T) {
	r := newRig(64, 4096)
	r.created(1, "/host.service")
	r.created(2, "/docker/"+containerID)
	r.exec(2, "first")
	r.exec(1, "other")
	r.exec(2, "second")
	if again := r.Drained(); again == 0 {
		t.Error("held events are not looked at again")
	}
	r.check(t, "/other host")
	r.describe(t, containerID, "web")
	r.exec(2, "third") // known by now, but not before those that wait
	r.check(t, "/other host", "/first web", "/second web", "/third web")
	r.Drained()
	r.check(t, "/other host", "/first web", "/second web", "/third web")
	if again := r.Drained(); again != 0 {
		t.Error("nothing is held, and it is looked at again")
	}
	if s := r.Stats(); s.HeldTotal != 2 || s.HeldExpired != 0 || s.Delay.Quantile(1) == 0 {
		t.Errorf("%+v", s)
	}
}

func TestEventsOfAContainerOfWhichOnlyTheIDIsToldWaitForItsName(t *testing.T) {
	r := newRig(64, 4096)
	r.created(2, "/docker/"+containerID)
	r.describe(t, containerID, "")
	r.exec(2, "first")
	r.Drained()
	r.check(t)
	r.describe(t, containerID, "web")
	r.exec(2, "second")
	r.check(t, "/first web", "/second web")

	r = newRig(64, 4096)
	r.created(2, "/docker/"+containerID)
	r.describe(t, containerID, "")
	r.exec(2, "first")
	r.now = 501 * time.Millisecond
	r.Drained()
	r.exec(2, "second") // a container may have no name
	if s := r.Stats(); s.HeldTotal != 1 || len(r.sheet.lines) != 2 || s.Pending != 0 {
		t.Errorf("told are %q, %+v", r.sheet.lines, s)
	}
}

func TestTheFirstEventsOfACgroupWaitForTheAnswerOfThoseWhoClaim(t *testing.T) {
	r := newRig(64, 4096)
	r.inventory.Claims("oci")
	r.created(1, "/a.service")
	r.created(2, "/web")
	r.created(3, "/slow")
	for cgroup, name := range []string{1: "a", 2: "web", 3: "slow"} {
		if cgroup > 0 {
			r.exec(uint64(cgroup), name)
		}
	}
	r.Drained()
	r.check(t)
	if err := r.inventory.Apply("oci", []*protov1.InventoryChange{
		{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{Id: "web", Scope: "oci", Name: "web", CgroupId: 2}}},
		{Change: &protov1.InventoryChange_Considered{Considered: &protov1.Considered{CgroupId: 1}}},
	}); err != nil {
		t.Fatal(err)
	}
	r.Drained()
	r.check(t, "/a host", "/web web")
	r.now = 501 * time.Millisecond
	r.Drained()
	r.check(t, "/a host", "/web web", "/slow pending")
	r.exec(3, "again")
	r.check(t, "/a host", "/web web", "/slow pending", "/again pending")
}

func TestEventsThatWaitedInVainGoOutOnceAndLaterOnesDoNotWait(t *testing.T) {
	r := newRig(64, 4096)
	r.created(2, "/docker/"+containerID)
	r.exec(2, "first")
	r.now = 499 * time.Millisecond
	r.Drained()
	r.check(t)
	r.now = 501 * time.Millisecond
	r.Drained()
	r.check(t, "/first pending")
	r.exec(2, "second")
	r.check(t, "/first pending", "/second pending")
	r.describe(t, containerID, "web")
	r.exec(2, "third")
	r.Drained()
	r.check(t, "/first pending", "/second pending", "/third web")
	if s := r.Stats(); s.HeldExpired != 1 || s.Pending != 2 {
		t.Errorf("%+v", s)
	}
}

func TestWhatDoesNotFitGoesOutPendingAndIsNotDropped(t *testing.T) {
	other := strings.Repeat("d", 64)
	r := newRig(2, 3)
	r.created(2, "/docker/"+containerID)
	r.created(3, "/docker/"+other)
	for _, name := range []string{"a1", "a2", "a3"} {
		r.exec(2, name)
	}
	r.exec(3, "b1")
	r.exec(3, "b2")
	r.Drained()
	r.check(t, "/a3 pending", "/b2 pending")
	if s := r.Stats(); s.HeldOverflow != 2 || s.Held != 3 {
		t.Errorf("%+v", s)
	}
	r.Close()
	r.check(t, "/a3 pending", "/b2 pending", "/a1 pending", "/a2 pending", "/b1 pending")
}

func TestACgroupThatWasNeverToldIsAskedForAndWaitsOnce(t *testing.T) {
	r := newRig(64, 4096)
	r.exec(9, "first")
	if r.unknown == 0 {
		t.Error("nobody was asked")
	}
	r.created(9, "/late.service")
	r.Drained()
	r.check(t, "/first host")
	r.exec(10, "never")
	r.now = time.Second
	r.Drained()
	r.exec(10, "again")
	r.Drained()
	r.check(t, "/first host", "/never pending", "/again pending")
	r.exec(0, "no cgroup")
	r.check(t, "/first host", "/never pending", "/again pending", "/no cgroup host")
}

func TestWhatTheCgroupGivesToTheHostThePidNamespaceMayGiveToAContainer(t *testing.T) {
	r := newRig(64, 4096)
	r.describe(t, containerID, "web")
	var asked []uint64
	v, _ := r.inventory.Get(&protov1.ContainerRef{Id: containerID})
	r.options.ByPID = func(e *event.Event) *inventory.Workload {
		asked = append(asked, e.CgroupID)
		if e.PIDNS != 106 || string(e.Exec.Path) == "/other" { // as all records here have it
			return nil
		}
		return v.Workload
	}
	r.created(1, "/")
	r.created(2, "/docker/"+strings.Repeat("d", 64))
	r.inventory.CgroupCreated(3, "/docker/"+containerID, time.Now())
	r.exec(1, "mine")
	r.exec(1, "other")
	r.exec(3, "known")
	r.exec(2, "held")
	r.exec(9, "never told")
	r.now = time.Second
	r.Drained()
	r.check(t, "/mine web", "/other host", "/known web", "/held pending", "/never told pending")
	if s := r.Stats(); s.ByPID != 1 || s.Container != 2 || s.Host != 3 {
		t.Errorf("%+v", s)
	}
	if fmt.Sprint(asked) != "[1 1]" {
		t.Errorf("asked of events of the cgroups %v", asked)
	}
}

func TestAMalformedRecordIsCountedAndNothingElse(t *testing.T) {
	r := newRig(64, 4096)
	r.Record([]byte("short"))
	r.Record(header(event.KernelKinds, 0, 1))
	r.Drained()
	r.check(t)
	if s := r.Stats(); s.Malformed != 2 || s.Decoded != 0 {
		t.Errorf("%+v", s)
	}
}

func TestNoEventAllocates(t *testing.T) {
	r := newRig(64, 4096)
	r.created(1, "/host.service")
	r.created(2, "/docker/"+containerID)
	r.created(3, "/docker/"+strings.Repeat("d", 64)) // never described: held
	r.describe(t, containerID, "web")
	r.options.Exporters = nil // their own tests count theirs
	records := [][]byte{
		execRecord(1, "true\x00bin\x00", "a\x00"), execRecord(2, "true\x00bin\x00", "a\x00"), openRecord(2, "/etc/hosts"),
		exitRecord(2), forkRecord(1), networkRecord(2), execRecord(3, "held\x00", "x\x00"),
	}
	round := func() {
		for _, b := range records {
			r.Record(b)
		}
		r.review(true)
		r.Drained()
	}
	round()
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations for %d events", n, len(records))
	}
}

func BenchmarkRecord(b *testing.B) {
	r := newRig(64, 4096)
	r.created(1, "/host.service")
	r.created(2, "/docker/"+containerID)
	if err := r.inventory.Apply("docker", []*protov1.InventoryChange{{
		Change: &protov1.InventoryChange_Container{Container: &protov1.Container{Id: containerID, Name: "web"}},
	}}); err != nil {
		b.Fatal(err)
	}
	r.options.Exporters = nil
	records := [][]byte{openRecord(1, "/etc/hosts"), openRecord(2, "/etc/hosts")}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		r.Record(records[n%2])
		n++
	}
}
