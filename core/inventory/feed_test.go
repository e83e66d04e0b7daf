package inventory

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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
		i.CgroupCreated(told, fmt.Sprintf("/docker/%064x", told))
		i.CgroupCreated(1000+told, fmt.Sprintf("/host%d", told))
		if g := i.Lookup(told); g == nil || g.State() != Pending || g.Hint() == "" {
			t.Errorf("a new cgroup of a container is %v", g)
		}
		if g := i.Lookup(1000 + told); g == nil || g.State() != Pending {
			t.Errorf("a new cgroup is taken for the host's before its owner was looked for")
		}
		i.CgroupRemoved(1000 + told)
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
	within(t, func() { i.CgroupCreated(1, "/a") })
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
			i.CgroupCreated(1<<60+n, "/x")
		}
		i.CgroupCreated(lost, "/lost")
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

func TestAPodsContainersAreEncodedOnceForManyChangesOfOneStep(t *testing.T) {
	encoded := 0
	i := New(Options{Encode: func(*Workload) []byte { encoded++; return nil }})
	for n := range 100 {
		apply(t, i, "docker", inPod(fmt.Sprintf("%064x", n), fmt.Sprintf("u%d", n%10)))
	}
	encoded = 0
	apply(t, i, "kubernetes", podNamed("u3", "web"), podNamed("none", "none"))
	if encoded != 10 {
		t.Errorf("%d workloads were made anew for a pod of 10 containers", encoded)
	}
	for _, v := range i.Containers() {
		if want := v.Container.PodUid == "u3"; (v.Pod.GetName() == "web") != want {
			t.Errorf("a container of pod %s is in pod %q", v.Container.PodUid, v.Pod.GetName())
		}
	}
}

func inPod(id, uid string) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{Id: id, PodUid: uid}}}
}

func podNamed(uid, name string) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Pod{Pod: &protov1.Pod{Uid: uid, Name: name}}}
}

// BenchmarkCgroupCreatedDuringApply tells how long the kernel's messenger waits at
// worst while a discoverer tells of 10,000 containers and another of their pods.
func BenchmarkCgroupCreatedDuringApply(b *testing.B) {
	const all = 10000
	batch := make([]*protov1.InventoryChange, 0, 2*all)
	for n := range all {
		batch = append(batch, inPod(fmt.Sprintf("%064x", n), fmt.Sprintf("u%d", n)))
	}
	for n := range all {
		batch = append(batch, podNamed(fmt.Sprintf("u%d", n), "web"))
	}
	var worst, owned, sum time.Duration
	calls := 0
	for b.Loop() {
		i := New(Options{})
		done := make(chan error, 1)
		go func() { done <- i.Apply("docker", batch) }()
		var err error
		for n, busy := uint64(1), true; busy; n++ {
			path := fmt.Sprintf("/docker/%064x/host%d", 1<<40+n, n)
			start := time.Now()
			i.CgroupCreated(n, path)
			took := time.Since(start)
			worst, sum, calls = max(worst, took), sum+took, calls+1
			settled := func() bool { return isSettled(i.Lookup(n)) }
			for !settled() && busy {
				select {
				case err = <-done:
					busy = false
				default:
					time.Sleep(20 * time.Microsecond)
				}
			}
			if busy {
				owned = max(owned, time.Since(start))
			}
			select {
			case err = <-done:
				busy = false
			case <-time.After(20 * time.Microsecond):
			}
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(worst.Nanoseconds())/1e3, "worst-µs")
	b.ReportMetric(float64(sum.Nanoseconds())/1e3/float64(calls), "mean-µs")
	b.ReportMetric(float64(owned.Nanoseconds())/1e3, "worst-owner-µs")
}

func isSettled(g *Cgroup) bool { return g.settled.Load() }
