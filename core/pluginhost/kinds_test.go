package pluginhost

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func container(id string) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{Id: id, Name: "name of " + id}}}
}

func TestADetectorHearsAllWorkloadsAndTellsTheirMesh(t *testing.T) {
	h := newHost(t, Options{})
	var mu sync.Mutex
	known := map[string]string{}
	synced := 0
	d, err := h.RunDetector(t.Context(), testSpec(t, config.Mesh, nil), DetectorHandler{
		Workloads: func() []*protov1.InventoryChange {
			var all []*protov1.InventoryChange
			for i := range 700 {
				all = append(all, container(fmt.Sprint(i)))
			}
			return all
		},
		Changes: func(cs []*protov1.MeshChange) {
			mu.Lock()
			defer mu.Unlock()
			for _, c := range cs {
				switch c := c.GetChange().(type) {
				case *protov1.MeshChange_Reset_:
					clear(known)
				case *protov1.MeshChange_Synced:
					synced++
				case *protov1.MeshChange_Fact:
					known[c.Fact.GetWorkload().GetContainer().GetId()] = c.Fact.GetIdentity()
				case *protov1.MeshChange_Removed:
					delete(known, c.Removed.GetContainer().GetId())
				}
			}
		},
		Lost: func(string) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	state := func(wantSynced, wantKnown int, id string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			_, ok := known[id]
			return synced == wantSynced && len(known) == wantKnown && ok
		}
	}
	eventually(t, "the list", state(1, 700, "699"))
	d.Tell(container("new"))
	eventually(t, "a new one", state(1, 701, "new"))
	d.Tell(&protov1.InventoryChange{Change: &protov1.InventoryChange_Removed{Removed: &protov1.Removed{
		What: &protov1.Removed_Container{Container: &protov1.ContainerRef{Id: "3"}},
	}}})
	eventually(t, "one gone", state(1, 700, "new"))
	if err := syscall.Kill(running(t, d), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the list again", state(2, 700, "3"))
}

func TestASamplerAnswersItsStartAndEachReportInLockStep(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("keep=%v", keep), func(t *testing.T) {
			h := newHost(t, Options{})
			answers := make(chan *protov1.Answer, 1000)
			asked := make(chan time.Duration, 10)
			_, err := h.RunSampler(t.Context(), testSpec(t, config.Sampler, map[string]any{"keep": keep, "interval": 123}), SamplerHandler{
				Interval: func(d time.Duration) time.Duration { asked <- d; return 2 * time.Millisecond },
				Report:   func(uint64) *protov1.Report { return &protov1.Report{} },
				Answer:   func(a *protov1.Answer) { answers <- a },
				Lost:     func(string) {},
			})
			if err != nil {
				t.Fatal(err)
			}
			for want := range uint64(20) {
				a := <-answers
				if a.GetReportSequence() != want {
					t.Fatalf("answer to %d, not to %d", a.GetReportSequence(), want)
				}
				switch {
				case want > 0 && keep:
					if a.GetKeep() == nil {
						t.Fatalf("answer %v", a)
					}
				case a.GetPolicy().GetDefaultProbability() != 1/float64(1+want):
					t.Fatalf("answer %v", a)
				}
			}
			if d := <-asked; d != 123 {
				t.Errorf("it asked for an interval of %s", d)
			}
		})
	}
}

func TestIntervalsThatPassWhileASamplerIsAwayAreMerged(t *testing.T) {
	h := newHost(t, Options{})
	merged := make(chan uint64, 10000)
	s, err := h.RunSampler(t.Context(), testSpec(t, config.Sampler, nil), SamplerHandler{
		Interval: func(time.Duration) time.Duration { return 5 * time.Millisecond },
		Report:   func(m uint64) *protov1.Report { merged <- m; return &protov1.Report{} },
		Answer:   func(*protov1.Answer) {},
		Lost:     func(string) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	<-merged
	pid := running(t, s)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for m := range merged {
		if m >= 10 {
			break // a test that never sees it runs into the test's own deadline
		}
	}
}
