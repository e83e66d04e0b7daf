package inventory

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// within fails when f does not return: it waits for something that never comes.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for the lock")
	}
}

// running runs Run until the test ends.
func running(t *testing.T, i *Inventory) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		i.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came true: %s", what)
		}
	}
}

func TestTheKernelsWordIsTakenWhileABatchIsAppliedAndSeenAtOnce(t *testing.T) {
	var i *Inventory
	told := uint64(0)
	i = New(Options{Encode: func(*Workload) []byte {
		// The lock is held now, by this very goroutine.
		told++
		i.CgroupCreated(told, fmt.Sprintf("/docker/%064x", told), time.Now())
		i.CgroupCreated(1000+told, fmt.Sprintf("/host%d", told), time.Now())
		if g := i.Lookup(told); g == nil || g.State() != Pending || g.Hint() == "" {
			t.Errorf("a new cgroup of a container is %v", g)
		}
		if g := i.Lookup(1000 + told); g == nil || g.State() != Pending {
			t.Errorf("a new cgroup is taken for the host's before its owner was looked for")
		}
		i.CgroupRemoved(1000+told, time.Now())
		return nil
	}})
	within(t, func() {
		apply(t, i, "docker", described(fmt.Sprintf("%064x", 1), "one"), described(fmt.Sprintf("%064x", 2), "two"))
	})
	for id, want := range map[uint64]string{1: "one", 2: "two", 1001: "host", 1002: "host"} {
		if got := nameOf(i, id); got != want {
			t.Errorf("cgroup %d is %s's, want %s", id, got, want)
		}
	}
	if s := i.Stats(); s.Cgroups != 2 || s.Queued != 0 {
		t.Errorf("%+v", s)
	}
}

func TestWhatWasToldWhileTheLockWasTakenIsAppliedByRun(t *testing.T) {
	i := New(Options{})
	i.mu.Lock()
	within(t, func() { i.CgroupCreated(1, "/a", time.Now()) })
	running(t, i)
	i.mu.Unlock()
	eventually(t, "the cgroup is the host's", func() bool { return i.Lookup(1).State() == Host })
}

func TestAFullQueueIsCountedAndARescanFindsWhatItLost(t *testing.T) {
	root, rescans := t.TempDir(), 0
	i := New(Options{Rescan: func() { rescans++ }})
	if err := os.Mkdir(filepath.Join(root, "lost"), 0o700); err != nil {
		t.Fatal(err)
	}
	lost, err := inodeOf(filepath.Join(root, "lost"))
	if err != nil {
		t.Fatal(err)
	}
	i.mu.Lock()
	within(t, func() {
		for n := range uint64(QueueSize) {
			i.CgroupCreated(1<<60+n, "/x", time.Now())
		}
		i.CgroupCreated(lost, "/lost", time.Now())
	})
	i.mu.Unlock()
	if s := i.Stats(); s.Missed != 1 || s.Queued != QueueSize || rescans != 1 {
		t.Errorf("%+v, %d rescans", s, rescans)
	}
	if got := nameOf(i, lost); got != "pending" {
		t.Errorf("before the rescan: %s", got)
	}
	if _, err := i.Scan(root); err != nil {
		t.Fatal(err)
	}
	if got := nameOf(i, lost); got != "host" {
		t.Errorf("after the rescan: %s", got)
	}
}

func TestOthersGetTheLockInTheMiddleOfABatch(t *testing.T) {
	const all = 500
	var i *Inventory
	var asked atomic.Bool
	seen := make(chan uint64, 1)
	i = New(Options{Encode: func(*Workload) []byte {
		if !asked.Swap(true) {
			go func() { seen <- i.Stats().Containers }()
		}
		time.Sleep(time.Millisecond)
		return nil
	}})
	batch := make([]*protov1.InventoryChange, 0, all)
	for n := range all {
		batch = append(batch, described(fmt.Sprintf("%064x", n), "c"))
	}
	apply(t, i, "docker", batch...)
	if n := <-seen; n >= all {
		t.Errorf("the other got the lock when all %d were applied", n)
	}
}

func TestAPodsContainersAreMadeAnewOnceForABatchAndNoOthersAre(t *testing.T) {
	encoded := 0
	i := New(Options{Encode: func(*Workload) []byte { encoded++; return nil }})
	for n := range 100 {
		apply(t, i, "docker", inPod(fmt.Sprintf("%064x", n), fmt.Sprintf("u%d", n%10)))
	}
	encoded = 0
	apply(t, i, "kubernetes", podNamed("u3", "wed"), podNamed("u3", "web"), podNamed("none", "none"))
	if encoded != 10 {
		t.Errorf("%d workloads were made anew for a pod of 10 containers", encoded)
	}
	for _, v := range i.Containers() {
		if want := v.Container.PodUid == "u3"; (v.Pod.GetName() == "web") != want {
			t.Errorf("a container of pod %s is in pod %q", v.Container.PodUid, v.Pod.GetName())
		}
	}
}

func TestEverythingAtOnceEndsAsIfOneAfterTheOther(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "there"), 0o700); err != nil {
		t.Fatal(err)
	}
	i := New(Options{Encode: func(w *Workload) []byte { return []byte(w.Container.Id) }})
	running(t, i)
	const all = 300
	var wait sync.WaitGroup
	live := map[string]uint64{}
	wait.Go(func() {
		for n := range uint64(all) {
			path := fmt.Sprintf("/docker/%064x", n)
			i.CgroupCreated(2*n+1<<60, path, time.Now())
			i.CgroupCreated(2*n+1+1<<60, path+"/init", time.Now())
			live[path] = 2*n + 1<<60
			if n%3 == 0 {
				i.CgroupRemoved(2*n+1+1<<60, time.Now())
			} else {
				live[path+"/init"] = 2*n + 1 + 1<<60
			}
		}
	})
	for _, source := range []string{"docker", "containerd", "oci"} {
		wait.Go(func() {
			for range 3 {
				batch := []*protov1.InventoryChange{reset()}
				for n := range all {
					batch = append(batch, inPod(fmt.Sprintf("%064x", n), fmt.Sprintf("u%d", n%7)), podNamed(fmt.Sprintf("u%d", n%7), source))
				}
				if err := i.Apply(source, append(batch, synced())); err != nil {
					t.Error(err)
				}
				i.Away(source)
			}
			apply(t, i, source, reset(), synced())
			for n := range all {
				apply(t, i, source, described(fmt.Sprintf("%064x", n), source))
			}
		})
	}
	wait.Go(func() {
		m := i.Mesh("generic")
		for n := range all {
			if err := m.Apply([]*protov1.MeshChange{podFact(fmt.Sprintf("u%d", n%7), "istio"), containerFact(fmt.Sprintf("%064x", n), "istio")}); err != nil {
				t.Error(err)
			}
		}
	})
	wait.Go(func() {
		for range 20 {
			i.Containers()
			i.Workloads()
			i.Cgroups()
			i.Stats()
			if _, err := i.Scan(root); err != nil {
				t.Error(err)
			}
			for n := range uint64(all) {
				if g := i.Lookup(2*n + 1<<60); g != nil && g.State() == Known && g.Workload() == nil {
					t.Error("a cgroup is known and has no workload")
				}
			}
		}
	})
	wait.Wait()
	i.mu.Lock()
	i.finish()
	i.mu.Unlock()
	for path, id := range live {
		if g := i.Lookup(id); g.State() != Known || g.Workload().Container.Name != "docker" || g.Workload().Stale {
			t.Fatalf("%s is %v", path, g)
		}
	}
	if s := i.Stats(); s.Containers != all || s.Cgroups != uint64(len(live)+2) || s.Corrected != 0 || s.Missed != 0 {
		t.Errorf("%+v", s)
	}
}

func inPod(id, uid string) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{Id: id, PodUid: uid}}}
}

func podNamed(uid, name string) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Pod{Pod: &protov1.Pod{Uid: uid, Name: name}}}
}

// BenchmarkCgroupCreatedDuringApply tells how long the kernel's messenger waits at
// worst, and how long it takes till a new cgroup's owner is known, while a
// discoverer tells of 10,000 containers and their 10,000 pods.
func BenchmarkCgroupCreatedDuringApply(b *testing.B) {
	const all = 10000
	batch := make([]*protov1.InventoryChange, 0, 2*all)
	for n := range all {
		batch = append(batch, inPod(fmt.Sprintf("%064x", n), fmt.Sprintf("u%d", n)))
	}
	for n := range all {
		batch = append(batch, podNamed(fmt.Sprintf("u%d", n), "web"))
	}
	start := time.Now()
	var waits, owned []time.Duration
	for b.Loop() {
		i := New(Options{})
		stop := i.Observe(Observer{Cgroup: func(f *protov1.HostFact, _ bool) {
			owned = append(owned, time.Since(start)-time.Duration(f.GetCgroup().GetId()))
		}})
		done := make(chan error, 1)
		go func() { done <- i.Apply("docker", batch) }()
		for busy := true; busy; {
			select {
			case err := <-done:
				if err != nil {
					b.Fatal(err)
				}
				busy = false
			case <-time.After(50 * time.Microsecond):
				before := time.Since(start)
				i.CgroupCreated(uint64(before), "/docker/host", time.Now())
				waits = append(waits, time.Since(start)-before)
			}
		}
		stop()
	}
	for name, all := range map[string][]time.Duration{"wait": waits, "owner": owned} {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)-1].Nanoseconds())/1e3, name+"-worst-µs")
		b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds())/1e3, name+"-p99-µs")
	}
}
