package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types/task"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// listed gives the tracker a list that is made and read in one go.
func listed(t *testing.T, tr *tracker, snapshot bool, list ...found) {
	t.Helper()
	tr.beginList(snapshot)
	for i := range list {
		must(t, tr.list(&list[i]))
	}
	must(t, tr.endList(nil))
}

func line(id string, s task.Status) found {
	f := found{key: key{"default", id}, container: stored(id), tasks: true}
	if s != task.Status_UNKNOWN {
		f.task = &task.Process{ID: id, Pid: 100, Status: s}
	}
	return f
}

func TestTheListAndTheEventsLeaveNoGap(t *testing.T) {
	running, stopped := task.Status_RUNNING, task.Status_STOPPED
	for _, tt := range []struct {
		name string
		// known before, by an earlier connection; events before the list and while it is
		// made, which is read then
		known  []string
		before []*event
		while  []*event
		list   []found
		want   string
	}{
		{"what the list tells", nil, nil, nil, []found{line("a", running)}, "a:running"},
		{"one without a task", nil, nil, nil, []found{line("a", task.Status_UNKNOWN)}, "a:unspecified"},
		{"one whose states are not known", nil, nil, nil, []found{{key: key{"default", "a"}, container: stored("a")}}, "a:unspecified"},
		{"created while the list was made, and not in it", nil, nil, []*event{eventOf("b", containerCreated)}, nil, "b:created"},
		{"created while the list was made, and in it", nil, nil, []*event{eventOf("b", containerCreated), eventOf("b", taskStarted)}, []found{line("b", task.Status_UNKNOWN)}, "b:running"},
		{"started while the list was made, and older", nil, nil, []*event{eventOf("b", taskStarted)}, []found{line("b", task.Status_CREATED)}, "b:running"},
		{"deleted while the list was made, but in it", nil, nil, []*event{eventOf("a", taskExited), eventOf("a", containerDeleted)}, []found{line("a", running)}, ""},
		{"known before and gone", []string{"old"}, nil, nil, nil, ""},
		{"known before, and ended while there was no connection", []string{"old"}, nil, nil, []found{line("old", stopped)}, "old:exited"},
		{"known before, and its task deleted while there was no connection", []string{"old"}, nil, nil, []found{line("old", task.Status_UNKNOWN)}, "old:exited"},
		{"known before, and ended while the list was made", []string{"old"}, nil, []*event{eventOf("old", taskExited)}, []found{line("old", running)}, "old:exited"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr, r := trackerFor(t)
			if len(tt.known) > 0 {
				must(t, tr.connected())
				for _, id := range tt.known {
					must(t, tr.event(eventOf(id, containerCreated)))
					must(t, tr.event(eventOf(id, taskStarted)))
				}
				tr.disconnected()
			}
			must(t, tr.connected())
			tr.beginList(true)
			for _, e := range tt.while {
				must(t, tr.event(e))
			}
			for i := range tt.list {
				must(t, tr.list(&tt.list[i]))
			}
			must(t, tr.endList(nil))
			answerAll(t, tr, func(id string) *protov1.Container { return nil })
			if r.syncs != 1 || r.inSnapshot {
				t.Fatalf("%d synced, in a snapshot %v", r.syncs, r.inSnapshot)
			}
			if got := known(r); got != tt.want {
				t.Errorf("got %q, want %q; told %q", got, tt.want, r.log)
			}
		})
	}
}

func known(r *recorder) string {
	var out []string
	for k, c := range r.containers {
		out = append(out, k.id+":"+strings.ToLower(strings.TrimPrefix(c.State.String(), "STATE_")))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestAnEmptyHostIsSyncedAtOnce(t *testing.T) {
	tr, r := trackerFor(t)
	must(t, tr.connected())
	listed(t, tr, true)
	if got := strings.Join(r.log, " "); got != "reset synced" {
		t.Error(got)
	}
}

func TestAListThatFailsTakesNothingAway(t *testing.T) {
	tr, r := connectedTo(t, line("a", task.Status_RUNNING), line("b", task.Status_RUNNING))
	tr.beginList(false)
	f := line("a", task.Status_RUNNING)
	must(t, tr.list(&f))
	must(t, tr.endList(fmt.Errorf("cut short")))
	if got := known(r); got != "a:running b:running" {
		t.Error(got)
	}
}

func TestAResyncTellsOnlyWhatDiffers(t *testing.T) {
	tr, r := connectedTo(t, line("same", task.Status_RUNNING), line("ended", task.Status_RUNNING), line("gone", task.Status_RUNNING))
	listed(t, tr, false, line("same", task.Status_RUNNING), line("ended", task.Status_STOPPED), line("missed", task.Status_RUNNING))
	want := map[string]bool{"container ended exited": true, "container missed running": true, "remove gone": true}
	for _, l := range r.log {
		if !want[l] {
			t.Errorf("told %q", l)
		}
		delete(want, l)
	}
	if len(want) > 0 {
		t.Errorf("not told: %v", want)
	}
}

func TestAResyncFindsWhatNoEventTold(t *testing.T) {
	tr, r := connectedTo(t, line("a", task.Status_RUNNING))
	must(t, tr.event(eventOf("a", taskOOM)))
	f := line("a", task.Status_RUNNING)
	f.container.Labels = map[string]string{"new": "label"}
	f.task.Pid = 200
	listed(t, tr, false, f)
	if c := r.container("a"); c.Labels["new"] != "label" || c.Pid != 200 || c.OomKilled != nil {
		t.Error("it is another task, and has another label: ", c)
	}
}

func TestWhatIsGoneAfterAReconnectionIsKnownUntilTheSnapshotIsComplete(t *testing.T) {
	tr, r := connectedTo(t, line("old", task.Status_RUNNING))
	tr.disconnected()
	must(t, tr.connected())
	listed(t, tr, true)
	if got := strings.Join(r.log, " "); got != "reset synced" || len(tr.containers) != 0 {
		t.Error(got)
	}
}

func TestAnEventThatComesBeforeTheListLacksNothingAfterIt(t *testing.T) {
	tr, r := trackerFor(t)
	must(t, tr.connected())
	tr.beginList(true)
	must(t, tr.event(eventOf("a", taskPaused)))
	f := line("a", task.Status_RUNNING)
	must(t, tr.list(&f))
	must(t, tr.endList(nil))
	if c := r.container("a"); c.State != protov1.Container_STATE_PAUSED || c.Pid != 100 {
		t.Error(c)
	}
}
