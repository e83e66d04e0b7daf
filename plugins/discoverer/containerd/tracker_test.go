package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types/task"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func testFilter() *describe.Filter { return describe.NewFilter(describe.DefaultFilter()) }

func trackerFor(t *testing.T) (*tracker, *recorder) {
	t.Helper()
	r := newRecorder(t)
	return newTracker(r, scope{}, testFilter()), r
}

// connectedTo gives a tracker whose snapshot of a list is complete.
func connectedTo(t *testing.T, list ...found) (*tracker, *recorder) {
	t.Helper()
	tr, r := trackerFor(t)
	must(t, tr.connected())
	listed(t, tr, true, list...)
	r.log = nil
	return tr, r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var clock int64

func eventOf(id string, a action, change ...func(*event)) *event {
	clock++
	e := &event{action: a, key: key{"default", id}, nano: clock}
	switch a {
	case containerCreated:
		e.image = "img:1"
	case taskCreated, taskStarted, taskExited, taskDeleted:
		e.pid = 100
	}
	for _, c := range change {
		c(e)
	}
	return e
}

func ending(code uint32) func(*event) { return func(e *event) { e.code = code } }
func ofPID(pid uint32) func(*event)   { return func(e *event) { e.pid = pid } }

// stored is a container as the store tells it.
func stored(id string) *protov1.Container {
	return &protov1.Container{Id: id, Scope: "containerd:default", Name: id, Image: &protov1.Image{Name: "img", Tag: "1"}, Runtime: runtimeName,
		Hostname: "stored", CgroupPath: "/default/" + id}
}

func TestACreateEventNamesAContainerAtOnce(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(eventOf("a", containerCreated)))
	c := r.container("a")
	if c.GetName() != "a" || c.Image.Name != "img" || c.Image.Tag != "1" || c.Scope != "containerd:default" || c.CreatedUnixNano == 0 || c.State != protov1.Container_STATE_CREATED {
		t.Error(c)
	}
	if got := strings.Join(r.log, "; "); got != "container a created; lifecycle a created" {
		t.Error(got)
	}
}

func TestAnIDThatIsUniqueHasNoScopeAndNoNameUntilItsLabelsAreKnown(t *testing.T) {
	tr, r := connectedTo(t)
	id := strings.Repeat("0f", 32)
	must(t, tr.event(eventOf(id, containerCreated)))
	if c := r.container(id); c == nil || c.Name != "" || c.Scope != "" {
		t.Error(c)
	}
	must(t, tr.event(eventOf(id, containerDeleted)))
	if len(r.containers) != 0 {
		t.Error(r.containers)
	}
}

func TestNamespacesAreKeptApart(t *testing.T) {
	tr, r := connectedTo(t)
	other := func(e *event) { e.key.namespace = "other" }
	must(t, tr.event(eventOf("a", containerCreated)))
	must(t, tr.event(eventOf("a", containerCreated, other)))
	must(t, tr.event(eventOf("a", taskStarted, other)))
	must(t, tr.event(eventOf("a", containerDeleted)))
	if len(r.containers) != 1 || r.containers[key{"other", "a"}].GetState() != protov1.Container_STATE_RUNNING {
		t.Error(r.containers)
	}
	must(t, tr.event(&event{action: namespaceDeleted, key: key{namespace: "other"}}))
	if len(r.containers) != 0 || len(tr.containers) != 0 {
		t.Error(r.containers)
	}
}

func TestTheLifeOfAContainerIsTold(t *testing.T) {
	tr, r := connectedTo(t)
	for _, e := range []*event{
		eventOf("a", containerCreated), eventOf("a", taskCreated), eventOf("a", taskStarted), eventOf("a", taskPaused),
		eventOf("a", taskResumed), eventOf("a", taskOOM), eventOf("a", taskExited, ending(137)), eventOf("a", taskDeleted, ending(137)),
	} {
		must(t, tr.event(e))
	}
	answerAll(t, tr, stored)
	c := r.container("a")
	if c.State != protov1.Container_STATE_EXITED || c.GetExitCode() != 137 || !c.GetOomKilled() || c.Pid != 0 || c.StartedUnixNano == 0 || c.FinishedUnixNano <= c.StartedUnixNano {
		t.Error(c)
	}
	// And once more.
	must(t, tr.event(eventOf("a", taskCreated, ofPID(200))))
	must(t, tr.event(eventOf("a", taskStarted, ofPID(200))))
	if c := r.container("a"); c.State != protov1.Container_STATE_RUNNING || c.ExitCode != nil || c.OomKilled != nil || c.Pid != 200 || c.FinishedUnixNano != 0 {
		t.Error(c)
	}
	must(t, tr.event(eventOf("a", taskExited, ofPID(200), ending(3))))
	must(t, tr.event(eventOf("a", containerDeleted)))
	want := []string{"created", "started", "paused", "unpaused", "oom", "died exit_code=137 signal=9", "started", "died exit_code=3", "removed"}
	var got []string
	for _, l := range r.lines("lifecycle a ") {
		got = append(got, strings.TrimPrefix(l, "lifecycle a "))
	}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	if r.container("a") != nil || len(tr.containers)+len(tr.byPath)+len(tr.asking) != 0 {
		t.Error("something is left")
	}
}

func TestAnEndIsToldOnceWhicheverEventComesFirst(t *testing.T) {
	for _, order := range [][]action{{taskExited, taskDeleted}, {taskDeleted, taskExited}, {taskDeleted}, {taskExited, taskExited}} {
		tr, r := connectedTo(t)
		must(t, tr.event(eventOf("a", containerCreated)))
		must(t, tr.event(eventOf("a", taskStarted)))
		for _, a := range order {
			must(t, tr.event(eventOf("a", a, ending(5))))
		}
		if got := strings.Join(r.lines("lifecycle a died"), "; "); got != "lifecycle a died exit_code=5" {
			t.Errorf("%v: told %q", order, got)
		}
		if c := r.container("a"); c.State != protov1.Container_STATE_EXITED || c.GetExitCode() != 5 {
			t.Error(c)
		}
	}
	tr, r := connectedTo(t)
	must(t, tr.event(eventOf("a", containerCreated)))
	must(t, tr.event(eventOf("a", taskCreated)))
	must(t, tr.event(eventOf("a", taskDeleted, ending(1)))) // it could not be started
	if got := r.lines("lifecycle a died"); len(got) > 0 || r.container("a").State != protov1.Container_STATE_EXITED {
		t.Error(got, r.container("a"))
	}
}

func TestTheEndOfAnEarlierTaskIsNotTheLaterOnes(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(eventOf("a", containerCreated)))
	must(t, tr.event(eventOf("a", taskStarted, ofPID(200))))
	must(t, tr.event(eventOf("a", taskExited, ofPID(100), ending(1))))
	must(t, tr.event(eventOf("a", taskDeleted, ofPID(100), ending(1))))
	if c := r.container("a"); c.State != protov1.Container_STATE_RUNNING || c.Pid != 200 {
		t.Error(c)
	}
	if n := len(r.lines("lifecycle a died exit_code=1")); n != 1 {
		t.Errorf("its end was told %d times", n)
	}
}

func TestWhatTheOperatorLeavesOutIsNotToldByEvents(t *testing.T) {
	tr, r := connectedTo(t)
	c := describe.DefaultFilter()
	c.FieldsExclude = []string{"*_unix_nano", "exit_code", "labels"}
	tr.filter = describe.NewFilter(c)
	for _, a := range []action{containerCreated, taskStarted, taskExited} {
		must(t, tr.event(eventOf("a", a)))
	}
	if c := r.container("a"); c.State != protov1.Container_STATE_EXITED || c.StartedUnixNano != 0 || c.FinishedUnixNano != 0 || c.CreatedUnixNano != 0 || c.ExitCode != nil {
		t.Error(c)
	}
	if got := len(r.lines("lifecycle a died exit_code=0")); got != 1 {
		t.Error("what happened is not told: ", r.log)
	}
}

func TestWhatDockerRunsIsDescribedButHasNoLifeOfItsOwn(t *testing.T) {
	tr, r := connectedTo(t)
	moby := func(e *event) { e.key.namespace = "moby" }
	id := strings.Repeat("ab", 32)
	for _, e := range []*event{eventOf(id, containerCreated, moby), eventOf(id, taskStarted, moby), eventOf(id, taskExited, moby), eventOf("img:1", imageCreated, moby)} {
		must(t, tr.event(e))
	}
	if c := r.container(id); c.GetState() != protov1.Container_STATE_EXITED || c.GetName() != "" {
		t.Error(c)
	}
	if got := r.lines("lifecycle"); len(got) > 0 {
		t.Error(got)
	}
}

func TestImagesAreToldWhenTheyArePulled(t *testing.T) {
	tr, r := connectedTo(t)
	for _, name := range []string{"docker.io/library/a:1", "sha256:" + strings.Repeat("0", 64)} {
		must(t, tr.event(&event{action: imageCreated, key: key{namespace: "default"}, image: name, nano: 7}))
	}
	must(t, tr.event(&event{action: imageDeleted, key: key{namespace: "default"}, image: "docker.io/library/a:1", nano: 7}))
	if got := strings.Join(r.log, "; "); got != "lifecycle  pulled image=docker.io/library/a:1" {
		t.Error(got)
	}
}

func TestThereIsRoomForSoManyContainersOnly(t *testing.T) {
	tr, r := connectedTo(t)
	for i := range maxContainers + 10 {
		must(t, tr.event(eventOf(fmt.Sprint("c", i), containerCreated)))
	}
	if len(r.containers) != maxContainers || tr.refused != 10 {
		t.Errorf("%d told, %d refused", len(r.containers), tr.refused)
	}
	must(t, tr.event(eventOf("c0", containerDeleted)))
	must(t, tr.event(eventOf("new", containerCreated)))
	if r.container("new") == nil {
		t.Error("no room after a deletion")
	}
}

// Whatever the order in which lists, answers and events come: at the end, with everything
// answered, what is told is what is true.
func TestAnyOrderEndsInTheTruth(t *testing.T) {
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		tr, r := trackerFor(t)
		now := time.Unix(1000, 0)
		tr.now = func() time.Time { return now }
		type world struct {
			state    task.Status // UNKNOWN: no task
			pid      uint32
			image    string
			code     uint32
			hostname string
		}
		truth := map[string]*world{}
		pids, made := uint32(100), 0
		look := func(id string) *protov1.Container {
			w, ok := truth[id]
			if !ok {
				return nil
			}
			c := stored(id)
			c.Image.Tag, c.Hostname = w.image, w.hostname
			return c
		}
		type inFlight struct {
			q   question
			ans *protov1.Container
		}
		var flights []inFlight
		var pending []*event
		land := func(i int) {
			f := flights[i]
			flights = append(flights[:i], flights[i+1:]...)
			how := answerOK
			if f.ans == nil {
				how = answerGone
			}
			if f.q.of == nil {
				must(t, tr.answerDoubt(f.q, f.ans, how))
			} else {
				must(t, tr.answer(f.q, f.ans, how))
			}
		}
		cgroups := uint64(0)
		var list []found
		listing, snapshot, read := false, false, 0
		// Of each container the list is made at some moment between question and answer,
		// its task's state before.
		makeList := func() {
			list = list[:0]
			for id, w := range truth {
				f := found{key: key{"default", id}, container: look(id), tasks: true}
				if w.state != task.Status_UNKNOWN {
					f.task = &task.Process{ID: id, Pid: w.pid, Status: w.state, ExitStatus: w.code, ExitedAt: timestamppb.Now()}
				}
				list = append(list, f)
			}
			read = 0
		}
		must(t, tr.connected())
		tr.beginList(true)
		listing, snapshot = true, true
		makeList()
		for range 300 {
			now = now.Add(time.Millisecond)
			id := fmt.Sprint("c", rnd.IntN(4))
			switch rnd.IntN(11) {
			case 0, 1: // the world moves on
				w, ok := truth[id]
				of := func(e *event) {
					if w != nil {
						e.pid, e.code, e.image = w.pid, w.code, "img:"+w.image
					}
				}
				switch {
				case !ok:
					made++
					w = &world{image: fmt.Sprint(made), hostname: "stored"}
					truth[id] = w
					pending = append(pending, eventOf(id, containerCreated, of))
				case w.state == task.Status_UNKNOWN && rnd.IntN(2) == 0:
					delete(truth, id)
					pending = append(pending, eventOf(id, containerDeleted))
				case w.state == task.Status_UNKNOWN && rnd.IntN(2) == 0:
					w.hostname += "+"
					pending = append(pending, eventOf(id, containerUpdated))
				case w.state == task.Status_UNKNOWN:
					pids++
					w.state, w.pid = task.Status_CREATED, pids
					pending = append(pending, eventOf(id, taskCreated, of))
				case w.state == task.Status_CREATED:
					w.state = task.Status_RUNNING
					pending = append(pending, eventOf(id, taskStarted, of))
				case w.state == task.Status_RUNNING:
					w.state, w.code = task.Status_STOPPED, rnd.Uint32N(3)
					pending = append(pending, eventOf(id, taskExited, of))
				case w.state == task.Status_STOPPED:
					pending = append(pending, eventOf(id, taskDeleted, of))
					w.state = task.Status_UNKNOWN
				}
			case 2, 3: // an event arrives
				if len(pending) > 0 {
					must(t, tr.event(pending[0]))
					pending = pending[1:]
				}
			case 4: // a question is sent, and answered from what is true now
				if q, ok := tr.next(); ok {
					flights = append(flights, inFlight{q, look(q.key.id)})
				}
			case 5:
				if q, ok := tr.nextDoubt(); ok {
					flights = append(flights, inFlight{q, look(q.key.id)})
				}
			case 6:
				if len(flights) > 0 {
					land(rnd.IntN(len(flights)))
				}
			case 7:
				if listing && read == 0 && rnd.IntN(2) == 0 {
					makeList()
				}
			case 8:
				if listing && read < len(list) {
					must(t, tr.list(&list[read]))
					read++
				}
			case 9:
				switch {
				case listing && read == len(list):
					must(t, tr.endList(nil))
					listing = false
				case !listing && tr.settled():
					tr.beginList(false)
					listing, snapshot = true, false
					makeList()
				}
			case 10:
				cgroups++
				must(t, tr.cgroup(&protov1.CgroupFact{Change: protov1.CgroupFact_CHANGE_CREATED, Id: cgroups, Path: fmt.Sprint("/default/c", rnd.IntN(6))}))
			}
		}
		_ = snapshot
		for _, e := range pending {
			must(t, tr.event(e))
		}
		if listing {
			for ; read < len(list); read++ {
				must(t, tr.list(&list[read]))
			}
			must(t, tr.endList(nil))
		}
		for n := 0; ; n++ {
			for len(flights) > 0 {
				land(0)
			}
			q, ok := tr.next()
			if !ok {
				q, ok = tr.nextDoubt()
			}
			if !ok {
				break
			}
			if n > 1000 {
				t.Fatalf("seed %d: it never settles", seed)
			}
			flights = append(flights, inFlight{q, look(q.key.id)})
		}
		tr.now = func() time.Time { return time.Now().Add(endPatience) }
		must(t, tr.leaveLate())
		if r.syncs != 1 || !tr.settled() {
			t.Fatalf("seed %d: %d synced, settled %v", seed, r.syncs, tr.settled())
		}
		for id, w := range truth {
			c := r.container(id)
			want := stateOf(w.state)
			if c.GetHostname() != w.hostname || c.GetImage().GetTag() != w.image || w.state != task.Status_UNKNOWN && c.GetState() != want {
				t.Fatalf("seed %d: %s is %+v, told %v\n%s", seed, id, w, c, strings.Join(r.log, "\n"))
			}
			if alive := w.state == task.Status_RUNNING; alive != (c.GetPid() != 0 && c.GetState() == protov1.Container_STATE_RUNNING) || alive && c.GetPid() != w.pid {
				t.Fatalf("seed %d: %s is %+v, told %v", seed, id, w, c)
			}
		}
		if len(r.containers) != len(truth) || len(tr.containers) != len(truth) {
			t.Fatalf("seed %d: %d containers told, %d kept, %d there", seed, len(r.containers), len(tr.containers), len(truth))
		}
		if len(tr.unread)+len(tr.leaving)+len(tr.asking) > 0 {
			t.Fatalf("seed %d: left are %v, %v and %v", seed, tr.unread, tr.leaving, tr.asking)
		}
		if len(r.cgroups) != int(cgroups) || len(tr.unanswered) > 0 {
			t.Fatalf("seed %d: %d of %d cgroups answered, %d wait", seed, len(r.cgroups), cgroups, len(tr.unanswered))
		}
	}
}
