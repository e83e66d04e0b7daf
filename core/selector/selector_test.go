package selector

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestWhatASelectorMeansFollowsContainersAndPaths(t *testing.T) {
	w := &inventory.Workload{Container: &protov1.Container{
		Id: "0123456789abcdef0123", Name: "shop-web-1", Image: &protov1.Image{Name: "nginx", Tag: "1.27"},
		Labels: map[string]string{"app": "web", "tier": "front"},
	}, Pod: &protov1.Pod{Namespace: "shop"}}
	kubelets := &inventory.Workload{Container: &protov1.Container{Labels: map[string]string{"io.kubernetes.pod.namespace": "shop"}}}
	if s := (Selector{Namespaces: []string{"shop"}}); !s.Covers("/a", kubelets) {
		t.Error("a container that the kubelet has labelled is not in its namespace")
	}
	if s := (Selector{Namespaces: []string{"*"}}); s.Covers("/a", &inventory.Workload{Container: &protov1.Container{}}) {
		t.Error("a container of no pod is in a namespace")
	}
	for _, test := range []struct {
		name     string
		selector Selector
		of, no   bool // the container's, and the host's
	}{
		{"a name", Selector{Containers: []string{"shop-*"}}, true, false},
		{"another name", Selector{Containers: []string{"shop"}}, false, false},
		{"an id", Selector{Containers: []string{"0123456789ab"}}, true, false},
		{"too little of an id", Selector{Containers: []string{"0123"}}, false, false},
		{"a pod's namespace", Selector{Namespaces: []string{"pay", "sh*p"}}, true, false},
		{"another namespace", Selector{Namespaces: []string{"pay"}}, false, false},
		{"a namespace and another name", Selector{Namespaces: []string{"shop"}, Containers: []string{"shop"}}, false, false},
		{"an image", Selector{Images: []string{"nginx"}}, true, false},
		{"an image with its tag", Selector{Images: []string{"nginx:1.*"}}, true, false},
		{"labels, all of them", Selector{Labels: map[string]string{"app": "w*", "tier": "front"}}, true, false},
		{"a label that is not there", Selector{Labels: map[string]string{"app": "*", "none": "*"}}, false, false},
		{"a path", Selector{Cgroups: []string{"/system.slice/*"}}, true, true},
		{"a path above", Selector{Cgroups: []string{"system.slice"}}, true, true},
		{"another path", Selector{Cgroups: []string{"/user.slice"}}, false, false},
		{"a path and a name", Selector{Cgroups: []string{"/system.slice"}, Containers: []string{"*"}}, true, false},
	} {
		if got := test.selector.Covers("/system.slice/docker-1.scope", w); got != test.of {
			t.Errorf("%s: the container's control group is covered: %v", test.name, got)
		}
		if got := test.selector.Covers("/system.slice/docker-1.scope", nil); got != test.no {
			t.Errorf("%s: one of no container is covered: %v", test.name, got)
		}
	}
}

// counter counts what it is asked to look at.
type counter struct{ some, all atomic.Int64 }

func (c *counter) Look(ids []uint64) { c.some.Add(int64(len(ids))) }
func (c *counter) LookAtAll()        { c.all.Add(1) }

func TestAControlGroupThatIsGoneIsForgottenInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := inventory.New(inventory.Options{})
		f := Follow(i)
		f.Want(true)
		var c counter
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go i.Run(ctx)
		go f.Run(ctx, &c)
		synctest.Wait()
		const n = 100
		for id := range uint64(n) {
			i.CgroupCreated(2+id, "/a", time.Now())
		}
		synctest.Wait()
		if got := len(f.All()); got != n {
			t.Errorf("of %d control groups it knows %d", n, got)
		}
		for id := range uint64(n) {
			i.CgroupRemoved(2+id, time.Now())
		}
		synctest.Wait()
		if got := len(f.All()); got != 0 || f.Lookup(2) != nil {
			t.Errorf("of those that are gone it knows %d", got)
		}
		if got := c.some.Load(); got != 2*n || c.all.Load() != 0 {
			t.Errorf("it had %d looked at, and all %d times", got, c.all.Load())
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		f.mu.Lock()
		left := len(f.gone)
		f.mu.Unlock()
		if left > 0 {
			t.Errorf("%d that are gone are remembered", left)
		}
	})
}

func TestWhenTooMuchChangesAllIsLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := inventory.New(inventory.Options{})
		f := Follow(i)
		f.queue(change{cgroup: 1}) // nobody wants it
		f.Want(true)
		for id := range uint64(queueSize + 1) {
			f.queue(change{cgroup: id + 2})
		}
		var c counter
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go f.Run(ctx, &c)
		synctest.Wait()
		if c.all.Load() != 1 || c.some.Load() != queueSize {
			t.Errorf("all was looked at %d times, and %d of %d control groups alone", c.all.Load(), c.some.Load(), queueSize+1)
		}
	})
}

// seen remembers the last control groups that it was asked to look at.
type seen struct{ ids []uint64 }

func (s *seen) Look(ids []uint64) { s.ids = ids }
func (s *seen) LookAtAll()        {}

func TestAPodThatIsToldAfterItsContainersHasThemLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := inventory.New(inventory.Options{})
		f := Follow(i)
		f.Want(true)
		var last seen
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go i.Run(ctx)
		go f.Run(ctx, &last)
		synctest.Wait()
		apply := func(source string, c *protov1.InventoryChange) {
			t.Helper()
			if err := i.Apply(source, []*protov1.InventoryChange{c}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		of := func(namespaces ...string) (covered bool) {
			s := Selector{Namespaces: namespaces}
			g := i.Lookup(7)
			return s.Covers(g.Path, g.Workload())
		}
		i.CgroupCreated(7, "/a", time.Now())
		apply("cri", &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{
			Id: "0123456789abcdef0123", Name: "web", PodUid: "u", CgroupId: 7,
		}}})
		if of("shop") {
			t.Error("a container whose pod is not known is in its namespace")
		}
		last.ids = nil
		apply("kubernetes", &protov1.InventoryChange{Change: &protov1.InventoryChange_Pod{Pod: &protov1.Pod{Uid: "u", Namespace: "shop"}}})
		if !slices.Equal(last.ids, []uint64{7}) || !of("shop") {
			t.Errorf("when its pod is told, %v are looked at; its namespace means it: %v", last.ids, of("shop"))
		}
		last.ids = nil
		apply("kubernetes", &protov1.InventoryChange{Change: &protov1.InventoryChange_Removed{Removed: &protov1.Removed{What: &protov1.Removed_PodUid{PodUid: "u"}}}})
		if !slices.Equal(last.ids, []uint64{7}) || of("shop") {
			t.Errorf("when its pod is gone, %v are looked at; its namespace means it: %v", last.ids, of("shop"))
		}
	})
}
