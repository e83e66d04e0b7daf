package inventory

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func in(scope, id, name string) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{
		Container: &protov1.Container{Id: id, Scope: scope, Name: name},
	}}
}

func TestAContainerIsFoundByWhatAUserCallsIt(t *testing.T) {
	i := New(Options{})
	apply(t, i, "docker", in("", id("a"), "web"), in("", "ab"+id("c")[:62], "db"), in("", "abd"+id("c")[:61], "db"))
	apply(t, i, "containerd", in("containerd:default", "web", "inner"), in("containerd:other", "web", "other"),
		in("oci:/run/runc", "job", "j"), in("", id("e"), "gone"))
	apply(t, i, "containerd", removed(id("e")))
	for _, c := range []struct {
		word string
		most int
		want []string // ids, with scopes
	}{
		{id("a"), 9, []string{id("a")}},
		{"db", 9, []string{"ab" + id("c")[:62], "abd" + id("c")[:61]}},
		{"ab", 9, []string{"ab" + id("c")[:62], "abd" + id("c")[:61]}},
		{"abd", 9, []string{"abd" + id("c")[:61]}},
		{"aa", 9, []string{id("a")}},
		{"web", 9, []string{"containerd:default/web", "containerd:other/web"}}, // ids come before names
		{"web", 1, []string{"containerd:default/web"}},
		{"containerd:other/web", 9, []string{"containerd:other/web"}},
		{"oci:/run/runc/job", 9, []string{"oci:/run/runc/job"}},
		{"/web", 9, nil},
		{"containerd:otherXweb", 9, nil},
		{"default/web", 9, nil},
		{"gone", 9, nil},
		{id("e"), 9, nil},
		{"zz", 9, nil},
		{"", 9, nil},
	} {
		var got []string
		for _, v := range i.Find(c.word, c.most) {
			is := v.Container.GetId()
			if s := v.Container.GetScope(); s != "" {
				is = s + "/" + is
			}
			got = append(got, is)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q finds %q, want %q", c.word, got, c.want)
		}
	}
}

func TestOfManyContainersTheFirstAreFound(t *testing.T) {
	i := New(Options{})
	var all []*protov1.InventoryChange
	for n := range 1000 {
		all = append(all, in("s", fmt.Sprintf("x%03d", 999-n), ""))
	}
	apply(t, i, "oci", all...)
	got := i.Find("x", 3)
	if len(got) != 3 || got[0].Container.GetId() != "x000" || got[2].Container.GetId() != "x002" {
		t.Errorf("%d: %v", len(got), got)
	}
}

func TestAHandleStandsForOneContainer(t *testing.T) {
	i := New(Options{})
	i.CgroupCreated(1, "/docker/"+id("a"), time.Now())
	i.CgroupCreated(2, "/ssh.service", time.Now())
	if got := i.Lookup(1).Handle(); got != (Handle{}) || got.Workload() != nil {
		t.Errorf("a cgroup that is nobody's has the handle %v", got)
	}
	apply(t, i, "docker", in("", id("a"), "before"))
	ref := &protov1.ContainerRef{Id: id("a")}
	v, ok := i.Get(ref)
	h := v.Handle()
	if !ok || h != i.Lookup(1).Handle() || h == i.Lookup(2).Handle() {
		t.Errorf("the container's and its cgroup's handles differ, or it is the host's too: %v, %v", h, ok)
	}
	apply(t, i, "docker", in("", id("a"), "after"))
	if again, _ := i.Get(ref); again.Handle() != h || h.Workload().Container.GetName() != "after" {
		t.Errorf("described anew it is another, or %q", h.Workload().Container.GetName())
	}
	apply(t, i, "docker", removed(id("a")))
	if _, ok := i.Get(ref); ok {
		t.Error("a container that is gone is given")
	}
}

func TestPodsAndServicesAreCounted(t *testing.T) {
	i := New(Options{})
	pod := func(uid string) *protov1.InventoryChange {
		return &protov1.InventoryChange{Change: &protov1.InventoryChange_Pod{Pod: &protov1.Pod{Uid: uid}}}
	}
	service := func(uid string) *protov1.InventoryChange {
		return &protov1.InventoryChange{Change: &protov1.InventoryChange_Service{Service: &protov1.Service{Uid: uid}}}
	}
	want := func(pods, services uint64) {
		t.Helper()
		if s := i.Stats(); s.Pods != pods || s.Services != services {
			t.Errorf("%d pods and %d services, want %d and %d", s.Pods, s.Services, pods, services)
		}
	}
	apply(t, i, "kubernetes", reset(), pod("a"), pod("b"), pod("a"), service("s"), synced())
	apply(t, i, "other", pod("a"))
	want(2, 1)
	apply(t, i, "kubernetes", reset(), pod("b"), synced())
	want(2, 0)
	apply(t, i, "other", removal(&protov1.Removed{What: &protov1.Removed_PodUid{PodUid: "a"}}))
	want(1, 0)
	apply(t, i, "other", removal(&protov1.Removed{What: &protov1.Removed_PodUid{PodUid: "b"}})) // it never told it
	want(1, 0)
}

func TestTheProcessesOfACgroupAreListedAsFarAsAskedFor(t *testing.T) {
	i := New(Options{})
	g := &Cgroup{Path: "/a"}
	if _, err := i.Procs(g, 9); err == nil {
		t.Error("without a scan they are listed")
	}
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "a", "cgroup.procs")
	if err := os.WriteFile(file, []byte("0\n7\n3\n9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Scan(root); err != nil {
		t.Fatal(err)
	}
	for most, want := range map[int][]uint32{9: {7, 3, 9}, 2: {7, 3}, 0: nil} {
		if got, err := i.Procs(g, most); err != nil || !slices.Equal(got, want) {
			t.Errorf("%d at most: %v, %v", most, got, err)
		}
	}
	if err := os.WriteFile(file, []byte("x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := i.Procs(g, 9); err == nil {
		t.Errorf("what is no number gives %v", got)
	}
}
