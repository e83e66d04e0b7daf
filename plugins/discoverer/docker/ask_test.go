package main

import (
	"fmt"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestNoOlderAnswerOverwritesANewerEvent(t *testing.T) {
	const created, running, exitedState = protov1.Container_STATE_CREATED, protov1.Container_STATE_RUNNING, protov1.Container_STATE_EXITED
	for _, tt := range []struct {
		name     string
		meantime []*events.Message // between the request and its answer
		answer   protov1.Container_State
		want     protov1.Container_State
		again    bool // asked again
	}{
		{"an answer with nothing meanwhile counts whole", nil, running, running, false},
		{"an answer from before the start", []*events.Message{event("a", events.ActionStart)}, created, running, true},
		{"an answer from before the end", []*events.Message{event("a", events.ActionStart), event("a", events.ActionDie, "exitCode", "3")}, running, exitedState, true},
		{"an answer from before a pause", []*events.Message{event("a", events.ActionStart), event("a", events.ActionPause)}, running, protov1.Container_STATE_PAUSED, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr, r := connectedTo(t)
			must(t, tr.event(event("a", events.ActionCreate)))
			req, ok := tr.next()
			if !ok {
				t.Fatal("not asked for")
			}
			for _, m := range tt.meantime {
				must(t, tr.event(m))
			}
			must(t, tr.inspected(req, answer("a", tt.answer), inspectOK))
			if c := r.container("a"); c.State != tt.want || c.Hostname != "inspected" {
				t.Errorf("told %v", c)
			}
			if _, again := tr.next(); again != tt.again {
				t.Errorf("asked again: %v", again)
			}
		})
	}
}

func TestAnAnswerAboutADestroyedContainerIsIgnored(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(event("a", events.ActionCreate)))
	req, _ := tr.next()
	must(t, tr.event(event("a", events.ActionDestroy)))
	must(t, tr.inspected(req, answer("a", protov1.Container_STATE_RUNNING), inspectOK))
	if len(r.containers) != 0 || len(tr.containers) != 0 || r.log[len(r.log)-1] != "remove a" {
		t.Error(r.log)
	}
}

func TestAContainerGoneBeforeInspectKeepsItsFacts(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(event("a", events.ActionCreate)))
	req, _ := tr.next()
	must(t, tr.inspected(req, nil, inspectGone))
	if r.container("a").GetName() != "n-a" {
		t.Error(r.log)
	}
	if _, again := tr.next(); again {
		t.Error("asked again")
	}
}

func TestAnInspectThatFailsIsTriedAFewTimes(t *testing.T) {
	tr, _ := connectedTo(t)
	must(t, tr.event(event("a", events.ActionCreate)))
	n := 0
	for {
		req, ok := tr.next()
		if !ok {
			break
		}
		n++
		must(t, tr.inspected(req, nil, inspectFailed))
	}
	if n != maxTries {
		t.Errorf("%d tries", n)
	}
}

func TestSyncedWaitsForEveryInspectOfTheSnapshot(t *testing.T) {
	tr, r := trackerFor(t)
	must(t, tr.connected())
	tr.beginList()
	must(t, tr.listed([]container.Summary{summary("a", "running"), summary("b", "running"), summary("c", "running")}, true))
	first, _ := tr.next()
	second, _ := tr.next()
	must(t, tr.inspected(first, answer(first.id, protov1.Container_STATE_RUNNING), inspectOK))
	must(t, tr.inspected(second, nil, inspectGone))
	if r.syncs != 0 {
		t.Fatal("synced too early")
	}
	must(t, tr.event(event("c", events.ActionDestroy)))
	if r.syncs != 1 {
		t.Error("not synced when the last one was destroyed")
	}
	if !tr.settled() {
		if _, ok := tr.next(); ok {
			t.Error("a destroyed container is asked for")
		}
	}
}

func TestNewsIsInspectedBeforeTheSnapshot(t *testing.T) {
	tr, _ := trackerFor(t)
	must(t, tr.connected())
	tr.beginList()
	var list []container.Summary
	for i := range 100 {
		list = append(list, summary(fmt.Sprint("old", i), "running"))
	}
	must(t, tr.listed(list, true))
	must(t, tr.event(event("new", events.ActionCreate)))
	must(t, tr.event(event("old50", events.ActionPause)))
	must(t, tr.event(event("old60", events.ActionRename)))
	got := ""
	for range 3 {
		req, _ := tr.next()
		got += req.id + " "
	}
	if got != "new old60 old0 " {
		t.Error(got)
	}
}

// What the answer to its end tells may be what Podman is about to take away.
func TestAContainerThatPodmanCleansUpIsAskedForAgain(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(event("a", "create", "podId", "")))
	must(t, tr.event(event("a", "died", "containerExitCode", "0")))
	answered := func() (n int) {
		t.Helper()
		for {
			req, ok := tr.next()
			if !ok {
				return n
			}
			n++
			must(t, tr.inspected(req, answer("a", protov1.Container_STATE_EXITED), inspectOK))
		}
	}
	answered()
	must(t, tr.event(event("a", "cleanup")))
	if n := answered(); n != 1 {
		t.Errorf("after it was cleaned up it was asked for %d times", n)
	}
	must(t, tr.event(event("a", "remove")))
	must(t, tr.event(event("a", "cleanup")))
	if r.container("a") != nil || len(tr.containers) != 0 || answered() != 0 {
		t.Error("a cleaning up that is told late brings it back")
	}
}
