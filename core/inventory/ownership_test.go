package inventory

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func telling(c *protov1.Container) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: c}}
}

func removedIn(scope, id string) *protov1.InventoryChange {
	return removal(&protov1.Removed{What: &protov1.Removed_Container{Container: &protov1.ContainerRef{Id: id, Scope: scope}}})
}

func names(i *Inventory, ids ...uint64) (out []string) {
	for _, id := range ids {
		out = append(out, nameOf(i, id))
	}
	return out
}

func checkNames(t *testing.T, i *Inventory, when string, ids []uint64, want ...string) {
	t.Helper()
	if got := names(i, ids...); !slices.Equal(got, want) {
		t.Errorf("%s: cgroups %v are %v's, want %v", when, ids, got, want)
	}
}

func TestAClaimHoldsForACgroupThatComesLater(t *testing.T) {
	i := New(Options{})
	apply(t, i, "oci",
		telling(&protov1.Container{Id: "web", Scope: "oci", Name: "by path", CgroupPath: "/custom/web"}),
		telling(&protov1.Container{Id: "db", Scope: "oci", Name: "by id", CgroupId: 20}))
	i.CgroupCreated(10, "/custom/web", time.Now())
	i.CgroupCreated(11, "/custom/web/init", time.Now())
	i.CgroupCreated(20, "/custom/db", time.Now())
	i.CgroupCreated(21, "/custom/db/init", time.Now())
	i.CgroupCreated(30, "/custom/webber", time.Now())
	checkNames(t, i, "", []uint64{10, 11, 20, 21, 30}, "by path", "by path", "by id", "by id", "host")
}

func TestAClaimIsOfTheWholeSubtreeAndMovesWithTheDescription(t *testing.T) {
	i := New(Options{})
	ids := []uint64{1, 2, 3, 4, 5}
	i.CgroupCreated(1, "/custom", time.Now())
	i.CgroupCreated(2, "/custom/a", time.Now())
	i.CgroupCreated(3, "/custom/a/x/y", time.Now()) // its parent was never told
	i.CgroupCreated(4, "/custom/b", time.Now())
	i.CgroupCreated(5, "/custom/b/z", time.Now())
	web := func(path string, id uint64) {
		apply(t, i, "oci", telling(&protov1.Container{Id: "web", Scope: "oci", Name: "web", CgroupPath: path, CgroupId: id}))
	}
	web("/custom/a", 0)
	checkNames(t, i, "told late", ids, "host", "web", "web", "host", "host")
	web("/custom/b/", 0)
	checkNames(t, i, "moved", ids, "host", "host", "host", "web", "web")
	web("", 2)
	checkNames(t, i, "moved to an id", ids, "host", "web", "web", "host", "host")
	web("/", 0)
	checkNames(t, i, "moved to the root", ids, "host", "host", "host", "host", "host")
	if n := i.Stats().Corrected; n != 0 {
		t.Errorf("%d owners are corrected, and none was another's", n)
	}
}

func TestOneContainerInTwoScopesIsOneWhicheverIsToldFirst(t *testing.T) {
	docker := telling(&protov1.Container{Id: id("a"), Name: "web"})
	containerd := telling(&protov1.Container{Id: id("a"), Scope: "containerd:moby", Name: "moby", Hostname: "h"})
	for _, order := range [][]string{{"docker", "containerd"}, {"containerd", "docker"}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			i := New(Options{})
			for n := range uint64(20) {
				i.CgroupCreated(n+1, fmt.Sprintf("/docker/%s/%d", id("a"), n), time.Now())
			}
			for range 3 {
				for _, s := range order {
					apply(t, i, s, map[string]*protov1.InventoryChange{"docker": docker, "containerd": containerd}[s])
				}
			}
			views := i.Containers()
			if len(views) != 1 || len(views[0].CgroupIDs) != 20 {
				t.Fatalf("%d containers: %v", len(views), views)
			}
			v := views[0]
			if v.Container.Name != "web" || v.Container.Hostname != "h" || v.Container.Scope != "" || fmt.Sprint(v.Sources) != "[docker containerd]" {
				t.Errorf("merged %v from %v", v.Container, v.Sources)
			}
			if got := nameOf(i, 7); got != "web" {
				t.Errorf("a cgroup is %s's", got)
			}
			if n := i.Stats().Corrected; n != 0 {
				t.Errorf("%d owners are corrected, and none was wrong", n)
			}
			apply(t, i, "docker", removed(id("a")))
			if got := i.Stats().Containers; got != 1 || nameOf(i, 7) != "moby" {
				t.Errorf("after one source's removal: %d containers, the cgroup is %s's", got, nameOf(i, 7))
			}
			apply(t, i, "containerd", removedIn("containerd:moby", id("a")))
			if got := i.Stats().Containers; got != 0 {
				t.Errorf("after both sources' removal: %d containers", got)
			}
		})
	}
}

func TestOfTwoContainersWithOneIDTheRankDecidesAndNotTheOrder(t *testing.T) {
	high := telling(&protov1.Container{Id: id("a"), Scope: "containerd:x", Name: "high"})
	low := telling(&protov1.Container{Id: id("a"), Scope: "oci:/run", Name: "low"})
	for n := range 40 { // a map decided once
		i := New(Options{})
		i.CgroupCreated(1, "/x/"+id("a"), time.Now())
		if n%2 == 0 {
			apply(t, i, "containerd", high)
			apply(t, i, "oci", low)
		} else {
			apply(t, i, "oci", low)
			apply(t, i, "containerd", high)
		}
		if got := nameOf(i, 1); got != "high" || i.Stats().Containers != 2 {
			t.Fatalf("the cgroup is %s's, of %d containers", got, i.Stats().Containers)
		}
		if want := uint64(n % 2); i.Stats().Corrected != want {
			t.Errorf("corrected %d, want %d", i.Stats().Corrected, want)
		}
	}
}

func TestAContainerThatTwoSourcesRemoveIsGoneAndLeavesNothing(t *testing.T) {
	now := time.Unix(1000, 0)
	i := New(Options{Now: func() time.Time { return now }})
	apply(t, i, "docker", described("aa", "docker's"), removed("aa"))
	now = now.Add(time.Second)
	apply(t, i, "containerd", described("aa", "containerd's"))
	if got := i.Stats().Containers; got != 1 {
		t.Errorf("described late: %d containers", got)
	}
	apply(t, i, "containerd", removed("aa"))
	if got := i.Containers(); len(got) != 0 || i.Stats().Containers != 0 {
		t.Errorf("removed by both: %v", got)
	}
	tidy(i, &now, 4)
	if len(i.containers)+len(i.byID) != 0 {
		t.Errorf("%d containers are remembered for ever", len(i.containers))
	}
}

func TestADeadSourcesWordOfALivingContainerEndsWithTheGrace(t *testing.T) {
	now := time.Unix(1000, 0)
	i := New(Options{Now: func() time.Time { return now }})
	apply(t, i, "docker", described("aa", "docker's"), removed("aa"))
	apply(t, i, "containerd", described("aa", "containerd's"))
	tidy(i, &now, 4)
	if v := i.Containers(); len(v) != 1 || v[0].Container.Name != "containerd's" || len(v[0].Sources) != 1 {
		t.Errorf("listed: %v", v)
	}
}

// tidy lets time go by.
func tidy(i *Inventory, now *time.Time, times int) {
	for range times {
		*now = now.Add(2 * grace)
		i.lock()
		i.tidy()
		i.finish()
		i.mu.Unlock()
	}
}

func TestACgroupThatIsGoneKeepsItsOwnerWhenItsPathIsAnothers(t *testing.T) {
	i := New(Options{})
	apply(t, i, "oci", telling(&protov1.Container{Id: "first", Scope: "oci", Name: "first", CgroupPath: "/web"}))
	i.CgroupCreated(1, "/web", time.Now())
	i.CgroupRemoved(1, time.Now())
	apply(t, i, "oci", removedIn("oci", "first"),
		telling(&protov1.Container{Id: "second", Scope: "oci", Name: "second", CgroupPath: "/web"}))
	i.CgroupCreated(2, "/web", time.Now())
	checkNames(t, i, "", []uint64{1, 2}, "first", "second")
}

func TestWhatASourceToldIsForgottenWhenItStaysAway(t *testing.T) {
	now := time.Unix(1000, 0)
	i := New(Options{Now: func() time.Time { return now }, StaleTTL: time.Minute})
	apply(t, i, "docker", reset(), described(id("a"), "a"), described(id("b"), "b"), podNamed("u", "p"), synced())
	apply(t, i, "containerd", reset(), described(id("b"), "b too"), synced())
	i.CgroupCreated(1, "/docker/"+id("a"), time.Now())
	i.Away("docker")
	now = now.Add(59 * time.Second)
	tidyNow := func() { i.lock(); i.tidy(); i.finish(); i.mu.Unlock() }
	tidyNow()
	if i.Stats().Containers != 2 || nameOf(i, 1) != "a" {
		t.Fatalf("before its time: %+v, %s", i.Stats(), nameOf(i, 1))
	}
	i.Away("docker") // it tried and could not: the same absence
	now = now.Add(2 * time.Second)
	tidyNow()
	v := i.Containers()
	if len(v) != 1 || v[0].Container.Name != "b too" || v[0].Stale || len(i.pods) != 0 {
		t.Errorf("after its time: %v, %d pods", v, len(i.pods))
	}
	if got := nameOf(i, 1); got != "a" {
		t.Errorf("events on their way are %s's", got)
	}
	tidy(i, &now, 1)
	if got := nameOf(i, 1); got != "pending" || len(i.containers) != 1 {
		t.Errorf("its cgroup is there and nobody vouches for it: %s, %d containers", got, len(i.containers))
	}
	apply(t, i, "docker", reset(), described(id("a"), "again"), synced())
	tidy(i, &now, 1)
	if got := nameOf(i, 1); got != "again" || i.Stats().Containers != 2 {
		t.Errorf("it came back: %s, %+v", got, i.Stats())
	}
}

func TestWhatIsToldAnewIsStaleNoMore(t *testing.T) {
	i := New(Options{})
	stale := func(name string) bool {
		t.Helper()
		v, ok := i.Get(&protov1.ContainerRef{Id: id(name)})
		if !ok {
			t.Fatalf("%s is not known", name)
		}
		return v.Stale
	}
	want := func(when string, a, b bool) {
		t.Helper()
		if stale("a") != a || stale("b") != b {
			t.Errorf("%s: stale are a: %v, b: %v", when, stale("a"), stale("b"))
		}
	}
	apply(t, i, "docker", reset(), described(id("a"), "a"), described(id("b"), "b"), synced())
	want("synced", false, false)
	i.Away("docker")
	want("away", true, true)
	apply(t, i, "docker", reset())
	want("as the snapshot begins", true, true)
	apply(t, i, "docker", described(id("a"), "a"))
	want("in the snapshot", false, true)
	i.Away("docker")
	want("away again", true, true)
	apply(t, i, "docker", reset(), described(id("b"), "b"))
	want("in another snapshot", true, false)
	apply(t, i, "docker", described(id("a"), "a"), synced())
	want("synced again", false, false)
}

func TestASnapshotThatHasBegunOutlivesTheAbsence(t *testing.T) {
	now := time.Unix(1000, 0)
	i := New(Options{Now: func() time.Time { return now }, StaleTTL: time.Second})
	apply(t, i, "docker", reset(), described("a", "a"), described("b", "b"), synced())
	i.Away("docker")
	apply(t, i, "docker", reset(), described("a", "a"))
	tidy(i, &now, 2)
	if v := i.Containers(); len(v) != 1 || v[0].Container.Id != "a" {
		t.Errorf("in the snapshot: %v", v)
	}
	apply(t, i, "docker", described("b", "b"), synced())
	tidy(i, &now, 2)
	if got := i.Stats().Containers; got != 2 {
		t.Errorf("after the snapshot: %d", got)
	}
}

// TestOwnersAreAsIfLookedForFromScratch changes everything at random and compares
// the owners, which are kept up change by change, with those of a walk from the
// root.
func TestOwnersAreAsIfLookedForFromScratch(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		now := time.Unix(1000, 0)
		i := New(Options{Now: func() time.Time { return now }, StaleTTL: time.Minute})
		segments := []string{"a", "b", id("a"), "docker-" + id("b") + ".scope"}
		path := func() string {
			p := ""
			for range 1 + r.IntN(4) {
				p += "/" + segments[r.IntN(len(segments))]
			}
			return p
		}
		pick := func(of ...string) string { return of[r.IntN(len(of))] }
		sources := []string{"docker", "containerd", "oci"}
		next, live := uint64(0), map[string]uint64{}
		for range 400 {
			source, scope, cid := pick(sources...), pick("", "x", "y"), pick(id("a"), id("b"), "web")
			switch r.IntN(12) {
			case 0, 1, 2, 3:
				p := path()
				if live[p] == 0 {
					next++
					live[p] = next
					i.CgroupCreated(next, p, time.Now())
				}
			case 4, 5:
				if all := slices.Sorted(maps.Keys(live)); len(all) > 0 {
					p := all[r.IntN(len(all))]
					i.CgroupRemoved(live[p], time.Now())
					delete(live, p)
				}
			case 6, 7, 8:
				c := &protov1.Container{Id: cid, Scope: scope, Name: source + scope + cid[:1], PodUid: pick("", "u")}
				if r.IntN(2) == 0 {
					c.CgroupPath = path()
				}
				if r.IntN(3) == 0 && next > 0 {
					c.CgroupId = 1 + r.Uint64N(next+1)
				}
				apply(t, i, source, telling(c))
			case 9:
				apply(t, i, source, removedIn(scope, cid))
			case 10:
				now = now.Add(time.Duration(r.IntN(15)) * time.Second)
				i.lock()
				i.tidy()
				i.finish()
				i.mu.Unlock()
			case 11:
				if r.IntN(2) == 0 {
					i.Away(source)
				} else {
					apply(t, i, source, reset(), synced())
				}
			}
			checkOwners(t, i, live)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		for _, g := range live {
			i.CgroupRemoved(g, time.Now())
		}
		for _, s := range sources {
			apply(t, i, s, reset(), synced())
		}
		tidy(i, &now, 4)
		if n := len(i.tree.root.children) + len(i.tree.byHint) + len(i.tree.claimPaths) + len(i.tree.claimIDs) +
			len(i.containers) + len(i.byID) + len(i.byPod) + len(i.pods) + len(i.gone) + len(i.leaving); n != 0 {
			t.Fatalf("seed %d: %d things are left over", seed, n)
		}
		if s := i.Stats(); s.Containers+s.Cgroups != 0 {
			t.Fatalf("seed %d: %+v", seed, s)
		}
	}
}

func checkOwners(t *testing.T, i *Inventory, live map[string]uint64) {
	t.Helper()
	i.lock()
	i.finish() // Run's part
	i.mu.Unlock()
	listed := uint64(0)
	for _, c := range i.containers {
		if c.removed.IsZero() {
			listed++
		}
		for g := range c.cgroups {
			if g.owner.Load() != c {
				t.Errorf("%v has a cgroup of another", c.key)
			}
		}
	}
	if s := i.Stats(); s.Containers != listed || s.Cgroups != uint64(len(live)) {
		t.Errorf("%+v, and there are %d containers and %d cgroups", s, listed, len(live))
	}
	for path, id := range live {
		g := i.Lookup(id)
		var up []*node
		for n := g.node; n != nil; n = n.parent {
			up = append(up, n)
		}
		var want *container
		for _, n := range slices.Backward(up) {
			if want = i.candidate(n); want != nil {
				break
			}
		}
		if got := g.owner.Load(); got != want {
			t.Errorf("cgroup %s is %s's, want %s", path, keyText(got), keyText(want))
		}
	}
}

func keyText(c *container) string {
	if c == nil {
		return "nobody"
	}
	return fmt.Sprint(c.key)
}
