package runtimes

import (
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// heard waits until the discoverer hears of containers: a server may take its time to
// answer for the first time.
func heard(t *testing.T, tr *harness.Tracer, rt env.Runtime, mine string) {
	t.Helper()
	n := 0
	eventually(t, "the discoverer to hear of a container", func() error {
		name := fmt.Sprintf("%s-heard-%d", mine, n)
		n++
		id, err := rt.RunShort(t.Context(), name, nil, name)
		if err != nil {
			t.Fatal(err)
		}
		e := tr.UntilCount(1, "process.exec", inside("/noop", name))[0]
		if e.Container == nil || e.Container.ID != id || e.Container.Name != name {
			return fmt.Errorf("the exec of container %s is not attributed: %s", name, e.Line)
		}
		return nil
	})
}

// shortContainers runs many containers that live for a moment, some at the same time,
// while the discoverer hangs for a while.
func shortContainers(t *testing.T, r row, rt env.Runtime) {
	const containers, atOnce = 100, 8
	tr := start(t, rt)
	mine := tag()
	name := func(i int) string { return fmt.Sprintf("%s-%d", mine, i) }
	heard(t, tr, rt, mine)
	ids := make([]string, containers)
	discoverer := discovererPID(tr, rt)
	began := time.Now()
	var done atomic.Int64
	var running errgroup.Group
	running.SetLimit(atOnce)
	for i := range containers {
		running.Go(func() (err error) {
			if done.Add(1) == containers/2 {
				if err := syscall.Kill(discoverer, syscall.SIGSTOP); err != nil {
					return err
				}
				time.AfterFunc(300*time.Millisecond, func() {
					if err := syscall.Kill(discoverer, syscall.SIGCONT); err != nil {
						t.Errorf("let the discoverer go on: %v", err)
					}
				})
			}
			ids[i], err = rt.RunShort(t.Context(), name(i), map[string]string{"number": fmt.Sprint(i)}, name(i))
			return err
		})
	}
	if err := running.Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	tr.Until("the exec of each container", func(events []harness.Event) bool {
		for i := range containers {
			if len(harness.Select(events, "process.exec", inside("/noop", name(i)))) == 0 {
				return false
			}
		}
		return true
	})
	if again := discovererPID(tr, rt); again != discoverer {
		t.Errorf("the discoverer was started again: process %d, then %d", discoverer, again)
	}
	stats := tr.Stats().GetAttribution()
	ledger := tr.Stop()
	events := tr.Events()

	ofContainer := map[string][]*harness.Event{}
	for i := range events {
		if e := &events[i]; e.Container != nil {
			ofContainer[e.Container.ID] = append(ofContainer[e.Container.ID], e)
		}
	}
	attributed, early := 0, 0
	for i, id := range ids {
		found := harness.Select(events, "process.exec", func(e *harness.Event) bool {
			return e.Process.Executable.Path == "/noop" && slices.Equal(e.Process.Args, []string{"/noop", name(i)})
		})
		if len(found) != 1 {
			t.Errorf("the exec of container %d was told %d times", i, len(found))
			continue
		}
		e := found[0]
		r.isOf(t, e, id, name(i), env.NoopImage)
		if e.Container != nil && e.Container.ID == id && !e.Pending {
			attributed++
		}
		for _, other := range ofContainer[id] {
			if other.Kind == "process.exec" && other != e && other.Process.Executable.Path == "/noop" {
				t.Errorf("container %d has another exec: %s", i, other.Line)
			}
			if other.Pending && other.Process.Comm != "noop" {
				early++ // the low-level runtime's own, which joins the cgroup before it is the container
				continue
			}
			r.isOf(t, other, id, name(i), env.NoopImage)
		}
	}
	if attributed != containers {
		t.Errorf("of %d first execs %d are attributed", containers, attributed)
	}
	t.Logf("%d of %d first execs attributed, %d events of the low-level runtime before them were not; containers made in %.1f s; %d events waited, the half up to %.1f ms, 99%% up to %.1f ms, %d in vain",
		attributed, containers, early, took.Seconds(), stats.GetHeldTotal(), stats.GetDelayP50Seconds()*1000, stats.GetDelayP99Seconds()*1000, stats.GetHeldExpired())
	checkLedger(t, ledger, map[string]int64{"process.exec": containers, "process.exit": containers})
}
