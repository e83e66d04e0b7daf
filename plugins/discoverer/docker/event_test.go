package main

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/moby/moby/api/types/events"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestReplayedEventsAreToldOnce(t *testing.T) {
	tr, r := connectedTo(t)
	all := []*events.Message{event("a", events.ActionCreate), event("a", events.ActionStart), event("a", events.ActionDie), event("a", events.ActionDestroy)}
	for _, m := range all {
		must(t, tr.event(m))
	}
	tr.disconnected()
	must(t, tr.connected())
	before := len(r.log)
	for _, m := range all {
		must(t, tr.event(m))
	}
	must(t, tr.event(event("b", events.ActionCreate)))
	if got := r.log[before:]; len(got) != 2 || got[0] != "container b n-b created" {
		t.Errorf("told %q", got)
	}
	for i := range 3 * len(tr.replayed.ring) {
		must(t, tr.event(event(fmt.Sprint("x", i), events.ActionKill)))
	}
	if n := len(tr.replayed.set); n > len(tr.replayed.ring) {
		t.Errorf("%d messages remembered", n)
	}
}

func TestDiedTellsCodeAndSignal(t *testing.T) {
	for _, tt := range []struct {
		name, signal, code, want string
	}{
		{"an exit", "", "3", "exit_code=3"},
		{"a kill that ended it", "9", "137", "exit_code=137 signal=9"},
		{"a kill that was handled", "15", "0", "exit_code=0"},
		{"a code that only looks like a signal", "", "137", "exit_code=137"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr, r := connectedTo(t)
			must(t, tr.event(event("a", events.ActionStart)))
			if tt.signal != "" {
				must(t, tr.event(event("a", events.ActionKill, "signal", tt.signal)))
			}
			must(t, tr.event(event("a", events.ActionDie, "exitCode", tt.code)))
			if got := r.log[len(r.log)-1]; got != "lifecycle a died "+tt.want {
				t.Error(got)
			}
		})
	}
}

func TestAnOOMStaysUntilTheNextStart(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(event("a", events.ActionStart)))
	must(t, tr.event(event("a", events.ActionOOM)))
	must(t, tr.event(event("a", events.ActionDie, "exitCode", "137")))
	req, _ := tr.next()
	forgetful := answer("a", protov1.Container_STATE_EXITED)
	forgetful.OomKilled = proto.Bool(false)
	must(t, tr.inspected(req, forgetful, inspectOK))
	if !r.container("a").GetOomKilled() {
		t.Error("forgotten")
	}
	must(t, tr.event(event("a", events.ActionStart)))
	if r.container("a").GetOomKilled() {
		t.Error("still told after a start")
	}
}

func TestPodmansWordsAreUnderstood(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(event("a", "create", "podId", "")))
	must(t, tr.event(event("a", "died", "containerExitCode", "4")))
	must(t, tr.event(event("a", "remove")))
	if got := strings.Join(r.lines("lifecycle"), "; "); got != "lifecycle a created; lifecycle a died exit_code=4; lifecycle a removed" {
		t.Error(got)
	}
}
