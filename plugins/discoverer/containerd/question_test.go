package main

import (
	"testing"

	"github.com/containerd/containerd/api/types/task"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// answerAll answers all questions from what the store has.
func answerAll(t *testing.T, tr *tracker, r func(id string) *protov1.Container) {
	t.Helper()
	for n := 0; ; n++ {
		q, ok := tr.next()
		if !ok {
			return
		}
		if n > 1000 {
			t.Fatal("it never ends asking")
		}
		c, how := r(q.key.id), answerOK
		if c == nil {
			how = answerGone
		}
		must(t, tr.answer(q, c, how))
	}
}

func TestAContainerWhoseCreationWasMissedIsAskedFor(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(eventOf("a", taskStarted)))
	if len(r.containers) != 0 {
		t.Error("told without being known")
	}
	answerAll(t, tr, stored)
	if c := r.container("a"); c.GetState() != protov1.Container_STATE_RUNNING || c.GetPid() != 100 || c.GetHostname() != "stored" {
		t.Error(c)
	}
	must(t, tr.event(eventOf("b", taskStarted)))
	answerAll(t, tr, func(string) *protov1.Container { return nil })
	if len(tr.containers) != 1 {
		t.Error("one that is not there is kept")
	}
}

func TestAnAnswerKeepsWhatTheTasksTold(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(eventOf("a", containerCreated)))
	q, _ := tr.next()
	must(t, tr.event(eventOf("a", taskStarted)))
	must(t, tr.event(eventOf("a", taskPaused)))
	must(t, tr.answer(q, stored("a"), answerOK))
	if c := r.container("a"); c.State != protov1.Container_STATE_PAUSED || c.Hostname != "stored" || c.Pid != 100 {
		t.Error(c)
	}
	if _, again := tr.next(); again {
		t.Error("asked again")
	}
}

func TestAnAnswerAboutADeletedContainerIsIgnored(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(eventOf("a", containerCreated)))
	q, _ := tr.next()
	must(t, tr.event(eventOf("a", containerDeleted)))
	must(t, tr.answer(q, stored("a"), answerOK))
	if len(r.containers) != 0 || len(tr.containers) != 0 || r.log[len(r.log)-1] != "remove a" {
		t.Error(r.log)
	}
}

func TestAnAnswerAboutAnEarlierContainerOfTheSameIDIsIgnored(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(eventOf("a", containerCreated)))
	q, _ := tr.next()
	must(t, tr.event(eventOf("a", containerDeleted)))
	must(t, tr.event(eventOf("a", containerCreated, func(e *event) { e.image = "img:2" })))
	must(t, tr.answer(q, stored("a"), answerOK))
	if c := r.container("a"); c.Image.Tag != "2" || c.Hostname != "" {
		t.Error(c)
	}
	q, ok := tr.next()
	if !ok {
		t.Fatal("the later one is not asked for")
	}
	later := stored("a")
	later.Image.Tag = "2"
	must(t, tr.answer(q, later, answerOK))
	if c := r.container("a"); c.Image.Tag != "2" || c.Hostname != "stored" {
		t.Error(c)
	}
}

func TestAContainerGoneBeforeTheAnswerKeepsItsFacts(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(eventOf("a", containerCreated)))
	answerAll(t, tr, func(string) *protov1.Container { return nil })
	if r.container("a").GetName() != "a" {
		t.Error(r.log)
	}
}

func TestAQuestionThatFailsIsAskedAFewTimes(t *testing.T) {
	tr, _ := connectedTo(t)
	must(t, tr.event(eventOf("a", containerCreated)))
	n := 0
	for {
		q, ok := tr.next()
		if !ok {
			break
		}
		n++
		must(t, tr.answer(q, nil, answerFailed))
	}
	if n != maxTries {
		t.Errorf("%d tries", n)
	}
	if len(tr.asking) != 0 {
		t.Error("it still counts as asked for")
	}
}

func TestAnUpdateDuringAQuestionAsksAgain(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(eventOf("a", containerCreated)))
	q, _ := tr.next()
	must(t, tr.event(eventOf("a", containerUpdated)))
	if _, ok := tr.next(); ok {
		t.Error("asked twice at a time")
	}
	must(t, tr.answer(q, stored("a"), answerOK))
	q, ok := tr.next()
	if !ok {
		t.Fatal("not asked again")
	}
	updated := stored("a")
	updated.Labels = map[string]string{"new": "label"}
	must(t, tr.answer(q, updated, answerOK))
	if r.container("a").Labels["new"] != "label" {
		t.Error(r.container("a"))
	}
}

func TestAQuestionUnderWayAtADisconnectionIsAskedAnew(t *testing.T) {
	tr, _ := connectedTo(t)
	must(t, tr.event(eventOf("a", containerCreated)))
	if _, ok := tr.next(); !ok {
		t.Fatal("not asked for")
	}
	tr.disconnected()
	must(t, tr.connected())
	listed(t, tr, true, line("a", task.Status_RUNNING))
	must(t, tr.event(eventOf("a", containerUpdated)))
	if _, ok := tr.next(); !ok {
		t.Error("not asked for again")
	}
}
