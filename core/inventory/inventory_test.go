package inventory

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func id(c string) string { return strings.Repeat(c, 64)[:64] }

func described(id, name string) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{
		Container: &protov1.Container{Id: id, Name: name},
	}}
}

func reset() *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Reset_{Reset_: &protov1.Reset{}}}
}

func synced() *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Synced{Synced: &protov1.Synced{}}}
}

func removed(id string) *protov1.InventoryChange {
	return removal(&protov1.Removed{What: &protov1.Removed_Container{Container: &protov1.ContainerRef{Id: id}}})
}

func apply(t *testing.T, i *Inventory, source string, changes ...*protov1.InventoryChange) {
	t.Helper()
	if err := i.Apply(source, changes); err != nil {
		t.Fatal(err)
	}
}

func nameOf(i *Inventory, id uint64) string {
	g := i.Lookup(id)
	if g == nil {
		return "?"
	}
	switch g.State() {
	case Host:
		return "host"
	case Pending:
		return "pending"
	}
	return g.Workload().Container.GetName()
}

func TestACgroupBelongsToTheOutermostKnownContainerOfItsPath(t *testing.T) {
	a, b, fake := id("a"), id("b"), id("f")
	for _, order := range []string{"cgroups first", "containers first"} {
		t.Run(order, func(t *testing.T) {
			i := New(Options{})
			steps := []func(){
				func() {
					i.CgroupCreated(1, "/system.slice/ssh.service", time.Now())
					i.CgroupCreated(2, "/docker/"+a, time.Now())
					i.CgroupCreated(3, "/docker/"+a+"/init", time.Now())
					i.CgroupCreated(4, "/docker/"+a+"/docker/"+b, time.Now())
					i.CgroupCreated(5, "/user/"+fake, time.Now())
					i.CgroupCreated(6, "/user/"+fake+"/docker/"+a, time.Now())
					i.CgroupCreated(7, "/pods/cri-containerd-"+b+".scope", time.Now())
				},
				func() { apply(t, i, "docker", described(a, "outer"), described(b, "inner")) },
			}
			if order == "containers first" {
				steps[0], steps[1] = steps[1], steps[0]
			}
			for _, s := range steps {
				s()
			}
			for id, want := range map[uint64]string{
				1: "host", 2: "outer", 3: "outer", 4: "outer", 5: "pending", 6: "outer", 7: "inner", 8: "?",
			} {
				if got := nameOf(i, id); got != want {
					t.Errorf("cgroup %d is %s's, want %s", id, got, want)
				}
			}
		})
	}
}

func TestAnOuterContainerThatIsToldLaterTakesTheCgroupAndIsCounted(t *testing.T) {
	a, b := id("a"), id("b")
	i := New(Options{})
	i.CgroupCreated(1, "/docker/"+a+"/docker/"+b, time.Now())
	apply(t, i, "docker", described(b, "inner"))
	if got := nameOf(i, 1); got != "inner" {
		t.Fatalf("before: %s", got)
	}
	apply(t, i, "docker", described(a, "outer"))
	if got := nameOf(i, 1); got != "outer" || i.Stats().Corrected != 1 {
		t.Errorf("after: %s, corrected %d", got, i.Stats().Corrected)
	}
}

func TestARuntimesOwnWordForItsCgroupNeedsNoHint(t *testing.T) {
	i := New(Options{})
	i.CgroupCreated(9, "/custom/parent/web", time.Now())
	i.CgroupCreated(10, "/custom/other", time.Now())
	apply(t, i, "oci",
		&protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{
			Id: "web", Scope: "oci:/run/runc", Name: "by path", CgroupPath: "/custom/parent/web"}}},
		&protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{
			Id: "other", Scope: "oci:/run/runc", Name: "by id", CgroupId: 10}}})
	i.CgroupCreated(11, "/custom/parent/web/child", time.Now())
	for id, want := range map[uint64]string{9: "by path", 10: "by id", 11: "by path"} {
		if got := nameOf(i, id); got != want {
			t.Errorf("cgroup %d is %s's, want %s", id, got, want)
		}
	}
}

func TestASnapshotForgetsWhatItDoesNotTellAndOnlyItsOwn(t *testing.T) {
	i := New(Options{})
	apply(t, i, "docker", reset(), described(id("a"), "a"), described(id("b"), "b"), synced())
	apply(t, i, "containerd", reset(), described(id("a"), "a too"), described(id("c"), "c"), synced())
	i.Away("docker")
	stale := 0
	for _, v := range i.Containers() {
		if v.Stale {
			stale++
		}
	}
	if stale != 2 {
		t.Errorf("%d containers are stale, want 2", stale)
	}
	apply(t, i, "docker", reset(), described(id("d"), "d"))
	if got := i.Stats().Containers; got != 4 {
		t.Errorf("in the middle of a snapshot: %d containers, want 4", got)
	}
	apply(t, i, "docker", synced())
	names := map[string]bool{}
	for _, v := range i.Containers() {
		names[v.Container.GetName()] = true
		if v.Stale {
			t.Errorf("%s is stale", v.Container.GetName())
		}
	}
	if fmt.Sprint(names) != "map[a too:true c:true d:true]" {
		t.Errorf("after: %v", names)
	}
	if err := i.Apply("docker", []*protov1.InventoryChange{synced()}); !errors.Is(err, ErrProtocol) {
		t.Errorf("synced without reset: %v", err)
	}
}

func TestFacetsMergeFieldByFieldByRank(t *testing.T) {
	i := New(Options{})
	apply(t, i, "containerd", &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{
		Id: id("a"), Name: "moby-a", Runtime: "containerd", Hostname: "h"}}})
	apply(t, i, "docker", described(id("a"), "web"))
	v := i.Containers()[0]
	if v.Container.GetName() != "web" || v.Container.GetHostname() != "h" || fmt.Sprint(v.Sources) != "[docker containerd]" {
		t.Errorf("merged %v from %v", v.Container, v.Sources)
	}
	if v.Fields["name"] != "docker" || v.Fields["hostname"] != "containerd" {
		t.Errorf("fields %v", v.Fields)
	}
}

func TestWhatIsGoneIsRememberedForItsLastEventsAndThenForgotten(t *testing.T) {
	now := time.Unix(1000, 0)
	i := New(Options{Now: func() time.Time { return now }})
	apply(t, i, "docker", described(id("a"), "a"))
	i.CgroupCreated(1, "/docker/"+id("a"), time.Now())
	apply(t, i, "docker", removed(id("a")))
	i.CgroupRemoved(1, time.Now())
	if got := nameOf(i, 1); got != "a" {
		t.Errorf("just removed: %s", got)
	}
	if got := i.Stats(); got.Containers != 0 || got.Cgroups != 0 {
		t.Errorf("just removed: %+v", got)
	}
	now = now.Add(2 * grace)
	i.CgroupCreated(2, "/x", time.Now())
	now = now.Add(2 * grace)
	i.CgroupCreated(3, "/y", time.Now())
	if got := nameOf(i, 1); got != "?" {
		t.Errorf("long removed: %s", got)
	}
	if len(i.containers) != 0 || len(i.byID) != 0 || len(i.tree.byHint) != 0 {
		t.Errorf("left over: %d containers, %d ids, %d hints", len(i.containers), len(i.byID), len(i.tree.byHint))
	}
}

func TestACgroupThatWasToldToBeGoneIsNotLookedForAfterItsContainer(t *testing.T) {
	for name, told := range map[string]bool{"its end was told": true, "its end was lost": false} {
		t.Run(name, func(t *testing.T) {
			now, rescans := time.Unix(1000, 0), 0
			i := New(Options{Now: func() time.Time { return now }, Rescan: func() { rescans++ }})
			apply(t, i, "docker", described(id("a"), "a"))
			i.CgroupCreated(1, "/docker/"+id("a"), time.Now())
			apply(t, i, "docker", removed(id("a"))) // right before the cgroup is, as runtimes do
			now = now.Add(grace / 2)
			if told {
				i.CgroupRemoved(1, time.Now())
			}
			now = now.Add(grace/2 + time.Millisecond)
			i.CgroupCreated(2, "/x", time.Now())
			if told != (rescans == 0) {
				t.Errorf("the cgroups are listed anew %d times", rescans)
			}
			if got := nameOf(i, 1); got != "a" {
				t.Errorf("an event of its is %s's", got)
			}
		})
	}
}

func TestAnObserverIsToldWhatChangesAndAListHoldsTheRest(t *testing.T) {
	i := New(Options{})
	apply(t, i, "docker", &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{
		Id: id("a"), Env: []string{"SECRET=1"}, Args: []string{"--password=x"}}}})
	i.CgroupCreated(1, "/a", time.Now())
	var workloads []*protov1.InventoryChange
	var cgroups []*protov1.HostFact
	stop := i.Observe(Observer{
		Workload: func(c *protov1.InventoryChange) { workloads = append(workloads, c) },
		Cgroup:   func(f *protov1.HostFact, _ bool) { cgroups = append(cgroups, f) },
	})
	apply(t, i, "docker", described(id("b"), "b"), removed(id("b")))
	i.CgroupCreated(2, "/b", time.Now())
	i.CgroupRemoved(2, time.Now())
	stop()
	apply(t, i, "docker", described(id("c"), "c"))
	i.CgroupCreated(3, "/c", time.Now())
	if len(workloads) != 2 || workloads[0].GetContainer().GetName() != "b" || workloads[1].GetRemoved() == nil {
		t.Errorf("told %v", workloads)
	}
	if len(cgroups) != 2 || cgroups[0].GetCgroup().GetPath() != "/b" {
		t.Errorf("told %v", cgroups)
	}
	list := i.Workloads()
	if len(list) != 2 || len(i.Cgroups()) != 2 {
		t.Errorf("listed %v and %v", list, i.Cgroups())
	}
	for _, c := range list {
		if d := c.GetContainer(); len(d.GetEnv())+len(d.GetArgs()) != 0 {
			t.Errorf("a secret goes out: %v", d)
		}
	}
}

// However late the inventory hears of it: a discoverer compares it with what it saw itself.
func TestAFactTellsWhenACgroupCameAndWentByTheKernel(t *testing.T) {
	i := New(Options{})
	var got []int64
	defer i.Observe(Observer{Cgroup: func(f *protov1.HostFact, _ bool) {
		got = append(got, f.GetCgroup().GetTimeUnixNano())
	}})()
	i.CgroupCreated(1, "/a", time.Unix(1000, 1))
	i.CgroupRemoved(1, time.Unix(1001, 2))
	if want := []int64{1000e9 + 1, 1001e9 + 2}; !slices.Equal(got, want) {
		t.Errorf("told are %v, want %v", got, want)
	}
}

func TestACgroupIsAwaitedUnlessItsContainerWasThereFirst(t *testing.T) {
	i := New(Options{})
	var got []string
	defer i.Observe(Observer{Cgroup: func(f *protov1.HostFact, awaited bool) {
		got = append(got, fmt.Sprint(f.GetCgroup().GetPath(), " ", f.GetCgroup().GetChange() == protov1.CgroupFact_CHANGE_CREATED, " ", awaited))
	}})()
	known := func(name string) *protov1.InventoryChange {
		return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{Id: id(name), CgroupPath: "/" + name}}}
	}
	apply(t, i, "docker", known("a"), known("b"), removed(id("b")))
	i.CgroupCreated(1, "/a", time.Now())
	i.CgroupCreated(2, "/a/inner", time.Now())
	i.CgroupCreated(3, "/b", time.Now()) // its container is gone: this may be another's
	i.CgroupCreated(4, "/c", time.Now())
	i.CgroupCreated(5, "/b", time.Now().Add(-time.Minute)) // when it was there
	i.CgroupCreated(6, "/b", time.Time{})
	apply(t, i, "docker", known("c"), removed(id("a")))
	i.CgroupRemoved(4, time.Now())
	i.CgroupRemoved(1, time.Now())
	want := "/a true false, /a/inner true false, /b true true, /c true true, /b true false, /b true true, /c false true, /a false false"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("told are %s, want %s", s, want)
	}
}

func TestAMeshFactOfAPodHoldsForItsContainersAndTheirOwnWins(t *testing.T) {
	i := New(Options{})
	apply(t, i, "docker", &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{
		Id: id("a"), Name: "app", PodUid: "u1"}}})
	m := i.Mesh("generic")
	fact := func(w *protov1.WorkloadRef, mesh string) *protov1.MeshChange {
		return &protov1.MeshChange{Change: &protov1.MeshChange_Fact{Fact: &protov1.MeshFact{Workload: w, Mesh: mesh}}}
	}
	pod := &protov1.WorkloadRef{Workload: &protov1.WorkloadRef_PodUid{PodUid: "u1"}}
	own := &protov1.WorkloadRef{Workload: &protov1.WorkloadRef_Container{Container: &protov1.ContainerRef{Id: id("a")}}}
	mesh := func() string { return i.Containers()[0].Mesh.GetMesh() }
	for _, step := range []struct {
		change *protov1.MeshChange
		want   string
	}{
		{fact(pod, "istio"), "istio"},
		{fact(own, "consul"), "consul"},
		{&protov1.MeshChange{Change: &protov1.MeshChange_Removed{Removed: own}}, "istio"},
		{&protov1.MeshChange{Change: &protov1.MeshChange_Removed{Removed: pod}}, ""},
	} {
		if err := m.Apply([]*protov1.MeshChange{step.change}); err != nil {
			t.Fatal(err)
		}
		if got := mesh(); got != step.want {
			t.Errorf("after %v: mesh %q, want %q", step.change, got, step.want)
		}
	}
}

func TestAnOrchestratorKnowsItsPodsBestAndARuntimeAddsWhatItDoesNotTell(t *testing.T) {
	i := New(Options{})
	told := func(p *protov1.Pod) *protov1.InventoryChange {
		return &protov1.InventoryChange{Change: &protov1.InventoryChange_Pod{Pod: p}}
	}
	apply(t, i, "crio", &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{
		Id: id("a"), Name: "app", PodUid: "u1"}}}, told(&protov1.Pod{Uid: "u1", Name: "by-cri", Phase: "Running", Ips: []string{"10.0.0.1"}}))
	pod := func() *protov1.Pod { return i.Containers()[0].Pod }
	if p := pod(); p.GetName() != "by-cri" || p.GetPhase() != "Running" {
		t.Errorf("by the runtime alone: %v", p)
	}
	apply(t, i, "kubernetes", told(&protov1.Pod{Uid: "u1", Name: "by-api", Phase: "Pending", ServiceAccount: "sa"}))
	if p := pod(); p.GetName() != "by-api" || p.GetPhase() != "Pending" || p.GetServiceAccount() != "sa" || len(p.GetIps()) != 1 {
		t.Errorf("by both: %v", p)
	}
	apply(t, i, "kubernetes", removal(&protov1.Removed{What: &protov1.Removed_PodUid{PodUid: "u1"}}))
	if p := pod(); p.GetName() != "by-cri" || p.GetServiceAccount() != "" {
		t.Errorf("by the runtime alone again: %v", p)
	}
	apply(t, i, "crio", removal(&protov1.Removed{What: &protov1.Removed_PodUid{PodUid: "u1"}}))
	if p := pod(); p != nil {
		t.Errorf("by nobody: %v", p)
	}
}

func TestWhatWatchesOverAContainerFromOutsideIsNoneOfIt(t *testing.T) {
	i := New(Options{})
	apply(t, i, "crio", described(id("a"), "app"))
	for n, path := range []string{"/pods/crio-" + id("a"), "/pods/crio-" + id("a") + ".scope", "/pods/crio-conmon-" + id("a"), "/pods/libpod-conmon-" + id("a") + ".scope"} {
		i.CgroupCreated(uint64(n), path, time.Now())
		if got, want := nameOf(i, uint64(n)), []string{"app", "app", "host", "host"}[n]; got != want {
			t.Errorf("%s belongs to %s, want %s", path, got, want)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	i := New(Options{})
	for n := range 1000 {
		c := fmt.Sprintf("%064x", n)
		if err := i.Apply("docker", []*protov1.InventoryChange{described(c, "c")}); err != nil {
			b.Fatal(err)
		}
		i.CgroupCreated(uint64(n*37), "/docker/"+c, time.Now())
	}
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		if i.Lookup(n%1000*37).Workload() == nil {
			b.Fatal("not found")
		}
		n++
	}
}

func TestWhatAForgottenDiscovererToldIsTakenOut(t *testing.T) {
	i := New(Options{})
	i.CgroupCreated(1, "/docker/"+id("a"), time.Now())
	apply(t, i, "docker", reset(), described(id("a"), "own"), described(id("b"), "shared"), synced())
	apply(t, i, "oci", reset(), described(id("b"), "from the bundle"), synced())
	i.Away("docker") // it had crashed before
	i.Forget("docker")
	views := i.Containers()
	if len(views) != 1 || views[0].Container.GetName() != "from the bundle" || views[0].Stale {
		t.Errorf("known are %v", views)
	}
	i.Forget("nobody")

	// It may be wanted again, and tells then what it always did.
	apply(t, i, "docker", reset(), described(id("a"), "again"), synced())
	if got := nameOf(i, 1); got != "again" {
		t.Errorf("the cgroup is %s's", got)
	}
	if n := i.Stats().Containers; n != 2 {
		t.Errorf("%d containers are counted, want 2", n)
	}
}
