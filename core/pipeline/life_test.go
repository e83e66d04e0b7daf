package pipeline

import (
	"strings"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func happening(k event.Kind, code int32, name string) inventory.Happening {
	h := inventory.Happening{Kind: k, Life: &event.Life{Exited: k == event.ContainerDied, ExitCode: code}}
	if name != "" {
		h.Workload = &inventory.Workload{Container: &protov1.Container{Id: containerID, Name: name}}
	}
	return h
}

func TestWhatHappenedToContainersIsReleasedInOrderBeforeWhatWaitedForIt(t *testing.T) {
	r := newRig(64, 4096)
	r.created(2, "/docker/"+containerID)
	r.exec(2, "first")
	r.describe(t, containerID, "web")
	r.Happened(happening(event.ContainerCreated, 0, "web"))
	r.Happened(happening(event.ContainerDied, 3, "web"))
	r.Happened(happening(event.ContainerDied, 0, "web"))
	r.Happened(happening(event.ImagePulled, 0, ""))
	r.Drained()
	r.exec(2, "second")
	r.Drained()
	r.check(t, "container.created web", "container.died web", "container.died web", "image.pulled host", "/first web", "/second web")
	s := r.Stats()
	if s.Injected != 4 || s.ByKind[event.ContainerDied] != 2 {
		t.Errorf("%+v", s)
	}
	want := []LifeCounts{
		{event.ContainerCreated, event.Info, 1, 0}, {event.ContainerDied, event.Info, 1, 0},
		{event.ContainerDied, event.Error, 1, 0}, {event.ImagePulled, event.Info, 1, 0},
	}
	got := r.Lives(&s)
	if len(got) != len(want) {
		t.Fatalf("the counts are %v", got)
	}
	for n := range want {
		if got[n] != want[n] {
			t.Errorf("%v, want %v", got[n], want[n])
		}
	}
}

func TestAHappeningThatFindsTheQueueFullOrClosedIsCounted(t *testing.T) {
	r := newRig(64, 4096)
	woken := 0
	r.options.Wake = func() { woken++ }
	const beyond = 7
	for range LifeQueue + beyond {
		r.Happened(happening(event.ContainerStarted, 0, "web"))
	}
	if woken != 1 || r.WaitingLives() != LifeQueue {
		t.Errorf("woken %d times, %d wait", woken, r.WaitingLives())
	}
	r.Close()
	r.Happened(happening(event.ContainerStarted, 0, "web"))
	s := r.Stats()
	if got := r.Lives(&s); len(got) != 1 || got[0] != (LifeCounts{event.ContainerStarted, event.Info, LifeQueue, beyond + 1}) {
		t.Errorf("the counts are %v", got)
	}
	if s.Decoded+s.Injected != s.Released || s.Released != LifeQueue || len(r.sheet.lines) != LifeQueue {
		t.Errorf("the ledger does not close: %+v", s)
	}
}

func TestACreationWaitsForTheNameOfItsContainerAndHoldsTheOthersBack(t *testing.T) {
	for name, tt := range map[string]struct {
		then func(*testing.T, *rig)
		want []string
	}{
		"it comes":  {func(t *testing.T, r *rig) { r.describe(t, containerID, "web") }, []string{"container.created web", "container.started web", "image.pulled host"}},
		"in vain":   {func(_ *testing.T, r *rig) { r.now += r.options.Hold }, []string{"container.created ", "container.started ", "image.pulled host"}},
		"it closes": {func(_ *testing.T, r *rig) { r.Close() }, []string{"container.created ", "container.started ", "image.pulled host"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(64, 4096)
			r.inventory = inventory.New(inventory.Options{Happened: func(h inventory.Happening) { r.Happened(h) }})
			r.describe(t, containerID, "")
			ref := &protov1.ContainerRef{Id: containerID}
			tell := func(l *protov1.Lifecycle) {
				if err := r.inventory.Apply("docker", []*protov1.InventoryChange{{Change: &protov1.InventoryChange_Lifecycle{Lifecycle: l}}}); err != nil {
					t.Fatal(err)
				}
			}
			tell(&protov1.Lifecycle{Container: ref, Action: "created"})
			if name != "it comes" {
				tell(&protov1.Lifecycle{Container: ref, Action: "started"})
				tell(&protov1.Lifecycle{Action: "pulled"})
			}
			if again := r.Drained(); again == 0 {
				t.Error("what waits is not looked at again")
			}
			r.check(t)
			tt.then(t, r)
			if name == "it comes" {
				tell(&protov1.Lifecycle{Container: ref, Action: "started"})
				tell(&protov1.Lifecycle{Action: "pulled"})
			}
			if again := r.Drained(); again != 0 {
				t.Error("nothing waits, and it is looked at again")
			}
			r.check(t, tt.want...)
		})
	}
}

func TestCreationsWithoutANameWaitTogether(t *testing.T) {
	r := newRig(64, 4096)
	nameless := happening(event.ContainerCreated, 0, "")
	nameless.Workload = &inventory.Workload{Container: &protov1.Container{Id: containerID}}
	for range 3 {
		r.Happened(nameless)
	}
	r.Drained()
	r.check(t)
	r.now += r.options.Hold
	r.Drained()
	r.check(t, "container.created ", "container.created ", "container.created ")
}

func TestAnEventOfTheKernelHasNothingOfOneThatWasInjected(t *testing.T) {
	r := newRig(64, 4096)
	r.Happened(happening(event.ContainerStarted, 0, "web"))
	r.Drained()
	r.exec(1, "after")
	if r.event.Life != nil {
		t.Error("the exec has a container's life")
	}
}

func TestTheFirstExecOfEachContainerIsCountedOnce(t *testing.T) {
	image := func(name, image string) *protov1.InventoryChange {
		return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{
			Container: &protov1.Container{Id: containerID, Name: name, Image: &protov1.Image{Name: image}},
		}}
	}
	tell := func(t *testing.T, r *rig, c *protov1.InventoryChange) {
		t.Helper()
		if err := r.inventory.Apply("docker", []*protov1.InventoryChange{c}); err != nil {
			t.Fatal(err)
		}
	}
	path := "/docker/" + containerID
	for name, tt := range map[string]struct {
		do           func(*testing.T, *rig)
		first, named uint64
	}{
		"the host's are not": {func(_ *testing.T, r *rig) { r.created(1, "/host.service"); r.exec(1, "a") }, 0, 0},
		"described before": {func(t *testing.T, r *rig) {
			tell(t, r, image("web", "nginx"))
			r.created(2, path)
			r.exec(2, "a")
			r.exec(2, "b")
		}, 1, 1},
		"described while it waits": {func(t *testing.T, r *rig) {
			r.created(2, path)
			r.exec(2, "a")
			r.exec(2, "b")
			tell(t, r, image("web", "nginx"))
		}, 1, 1},
		"without an image": {func(t *testing.T, r *rig) {
			tell(t, r, image("web", ""))
			r.created(2, path)
			r.exec(2, "a")
			tell(t, r, image("web", "nginx"))
			r.exec(2, "b")
		}, 1, 0},
		"described too late": {func(t *testing.T, r *rig) {
			r.created(2, path)
			r.exec(2, "a")
			r.now += r.options.Hold
			r.Drained()
			tell(t, r, image("web", "nginx"))
			r.exec(2, "b")
		}, 1, 0},
		"with no room to wait": {func(t *testing.T, r *rig) {
			r.created(2, path)
			for range 65 {
				r.exec(2, "a")
			}
			tell(t, r, image("web", "nginx"))
		}, 1, 0},
		"in a cgroup of its own below": {func(t *testing.T, r *rig) {
			tell(t, r, image("web", "nginx"))
			r.created(2, path)
			r.created(3, path+"/init.scope")
			r.exec(2, "a")
			r.exec(3, "b")
			r.exec(3, "c")
		}, 2, 2},
		"other events are none": {func(t *testing.T, r *rig) {
			tell(t, r, image("web", "nginx"))
			r.created(2, path)
			r.Record(openRecord(2, "/etc/hosts"))
			r.Record(forkRecord(2))
		}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(64, 4096)
			tt.do(t, r)
			r.Close()
			if s := r.Stats(); s.FirstExecs != tt.first || s.FirstExecsNamed != tt.named {
				t.Errorf("%d first execs, %d named; want %d and %d", s.FirstExecs, s.FirstExecsNamed, tt.first, tt.named)
			}
		})
	}
}

// What counting first execs costs: an open asks for its kind, an exec looks its cgroup up
// once more.
func BenchmarkFirstExec(b *testing.B) {
	for name, record := range map[string][]byte{
		"open of the host":      openRecord(1, "/etc/hosts"),
		"open of a container":   openRecord(2, "/etc/hosts"),
		"exec of the host":      execRecord(1, "true\x00bin\x00", "a\x00"),
		"exec of a container":   execRecord(2, "true\x00bin\x00", "a\x00"),
		"exec in a pending one": execRecord(3, "true\x00bin\x00", "a\x00"),
	} {
		b.Run(name, func(b *testing.B) {
			r := newRig(0, 0)
			r.created(1, "/host.service")
			r.created(2, "/docker/"+containerID)
			r.created(3, "/docker/"+strings.Repeat("d", 64))
			if err := r.inventory.Apply("docker", []*protov1.InventoryChange{{
				Change: &protov1.InventoryChange_Container{Container: &protov1.Container{Id: containerID, Name: "web"}},
			}}); err != nil {
				b.Fatal(err)
			}
			r.options.Exporters = nil
			b.ReportAllocs()
			for b.Loop() {
				r.Record(record)
			}
		})
	}
}
