package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types/task"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/contract"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// batch of facts about cgroups that were made: an id, a path, and so on.
func batch(idsAndPaths ...any) *protov1.HostFacts {
	out := &protov1.HostFacts{}
	for i := 0; i < len(idsAndPaths); i += 2 {
		out.Facts = append(out.Facts, &protov1.HostFact{Fact: &protov1.HostFact_Cgroup{Cgroup: &protov1.CgroupFact{
			Change: protov1.CgroupFact_CHANGE_CREATED, Id: uint64(idsAndPaths[i].(int)), Path: idsAndPaths[i+1].(string),
		}}})
	}
	return out
}

func removed(id uint64, path string) *protov1.HostFacts {
	b := batch(int(id), path)
	b.Facts[0].GetCgroup().Change = protov1.CgroupFact_CHANGE_REMOVED
	return b
}

// answers are the cgroups that were answered, each with its container, or -.
func answers(r *recorder) string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(r.cgroups)) {
		name := r.cgroups[id]
		if name == "" {
			name = "-"
		}
		out = append(out, fmt.Sprintf("%d:%s", id, name))
	}
	return strings.Join(out, " ")
}

func checkAnswers(t *testing.T, r *recorder, when, want string) {
	t.Helper()
	if got := answers(r); got != want {
		t.Errorf("%s: answered %q, want %q", when, got, want)
	}
}

func TestACgroupIsClaimedByItsContainerOnceItsRecordIsThere(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(eventOf("a", containerCreated)))
	must(t, tr.facts(batch(1, "/default", 2, "/default/a", 3, "/system.slice/ssh.service", 4, "/user.slice/a.scope")))
	checkAnswers(t, r, "before the store's answer", "1:- 3:-")
	answerAll(t, tr, stored)
	checkAnswers(t, r, "after it", "1:- 2:a 3:- 4:-")
	if c := r.container("a"); c.CgroupId != 2 || c.CgroupPath != "/default/a" {
		t.Error(c)
	}
	must(t, tr.facts(batch(5, "/default/a/init", 6, "/elsewhere/default/a")))
	checkAnswers(t, r, "others that are called alike", "1:- 2:a 3:- 4:- 5:- 6:-")
}

func TestACgroupOfAKnownContainerIsClaimedAtOnce(t *testing.T) {
	tr, r := connectedTo(t, line("a", task.Status_UNKNOWN))
	must(t, tr.facts(batch(1, "/default/a")))
	checkAnswers(t, r, "", "1:a")
	must(t, tr.facts(removed(1, "/default/a")))
	must(t, tr.event(eventOf("a", taskExited)))
	if c := r.container("a"); c.CgroupId != 1 {
		t.Error("events of the cgroup that are on their way are no longer the container's")
	}
	must(t, tr.facts(batch(2, "/default/a"))) // it was started again
	checkAnswers(t, r, "again", "1:a 2:a")
}

func TestACgroupThatComesBeforeItsContainerIsFoundInTheStore(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.facts(batch(1, "/default/a", 2, "/default/b", 3, "/c")))
	q, _ := tr.nextDoubt()
	other, _ := tr.nextDoubt()
	if _, more := tr.nextDoubt(); more || q.key != (key{"default", "a"}) || other.key != (key{"default", "b"}) {
		t.Fatal("asked for", q.key, other.key)
	}
	checkAnswers(t, r, "before the answers", "3:-")
	must(t, tr.answerDoubt(other, nil, answerGone))
	must(t, tr.answerDoubt(q, stored("a"), answerOK))
	checkAnswers(t, r, "after the answers", "1:a 2:- 3:-")
	// Then its events come.
	must(t, tr.event(eventOf("a", containerCreated)))
	must(t, tr.event(eventOf("a", taskStarted)))
	if c := r.container("a"); c.State != protov1.Container_STATE_RUNNING || c.CgroupId != 1 || c.Hostname != "stored" {
		t.Error(c)
	}
	if got := strings.Join(r.lines("lifecycle"), "; "); got != "lifecycle a created; lifecycle a started" {
		t.Error(got)
	}
}

func TestAContainerDeletedWhileItsCgroupIsAskedForStaysDeleted(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.facts(batch(1, "/default/a")))
	q, _ := tr.nextDoubt()
	must(t, tr.event(eventOf("a", containerCreated)))
	must(t, tr.event(eventOf("a", containerDeleted)))
	must(t, tr.answerDoubt(q, stored("a"), answerOK))
	answerAll(t, tr, stored)
	if r.container("a") != nil || len(tr.containers) != 0 {
		t.Error("it is back")
	}
	checkAnswers(t, r, "", "1:a")
}

func TestADeletionThatOvertakesTheRecordWaitsForIt(t *testing.T) {
	short := func(t *testing.T) (*tracker, *recorder) {
		tr, r := connectedTo(t)
		must(t, tr.event(eventOf("a", containerCreated)))
		must(t, tr.facts(batch(1, "/default/a")))
		must(t, tr.event(eventOf("a", taskStarted)))
		must(t, tr.event(eventOf("a", taskExited, ending(0))))
		must(t, tr.facts(removed(1, "/default/a")))
		must(t, tr.facts(batch(2, "/default/a")))
		must(t, tr.event(eventOf("a", containerDeleted)))
		checkAnswers(t, r, "before the record", "")
		return tr, r
	}
	t.Run("and tells whose the cgroup is", func(t *testing.T) {
		tr, r := short(t)
		answerAll(t, tr, stored)
		checkAnswers(t, r, "after it", "1:a 2:a")
		if r.container("a") != nil || len(tr.containers)+len(tr.leaving)+len(tr.asking) != 0 {
			t.Error("it is still there")
		}
	})
	t.Run("but not for long", func(t *testing.T) {
		tr, r := short(t)
		tr.now = func() time.Time { return time.Now().Add(endPatience) }
		must(t, tr.expire())
		must(t, tr.leaveLate())
		checkAnswers(t, r, "without it", "1:- 2:-")
		if r.container("a") != nil || len(tr.containers)+len(tr.leaving) != 0 {
			t.Error("it is still there")
		}
		answerAll(t, tr, stored)
		if r.container("a") != nil || len(tr.containers)+len(tr.asking) != 0 {
			t.Error("it is back")
		}
	})
}

func TestAContainerWithAnothersNameDoesNotGetItsCgroup(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.facts(batch(1, "/default/a")))
	q, _ := tr.nextDoubt()
	elsewhere := stored("a")
	elsewhere.CgroupPath = "/mine/a"
	must(t, tr.answerDoubt(q, elsewhere, answerOK))
	checkAnswers(t, r, "", "1:-")
	if c := r.container("a"); c == nil || c.CgroupId != 0 {
		t.Error(c)
	}
}

func TestCgroupsOfTheFirstListWaitForTheSnapshot(t *testing.T) {
	tr, r := trackerFor(t)
	must(t, tr.facts(&protov1.HostFacts{Facts: []*protov1.HostFact{{Fact: &protov1.HostFact_Reset_{Reset_: &protov1.Reset{}}}}}))
	must(t, tr.facts(batch(1, "/default/a", 2, "/x")))
	checkAnswers(t, r, "while connecting", "")
	must(t, tr.connected())
	tr.beginList(true)
	must(t, tr.facts(batch(3, "/default/b", 4, "/default/c")))
	f := line("a", task.Status_RUNNING)
	must(t, tr.list(&f))
	checkAnswers(t, r, "while listing", "1:a")
	if q, ok := tr.nextDoubt(); ok {
		t.Errorf("%v is asked for, although the list may tell", q.key)
	}
	must(t, tr.event(eventOf("b", containerCreated)))
	must(t, tr.endList(nil))
	checkAnswers(t, r, "after the list", "1:a 2:-")
	answerAll(t, tr, stored)
	q, ok := tr.nextDoubt()
	if !ok || q.key.id != "c" {
		t.Fatal(q, ok)
	}
	must(t, tr.answerDoubt(q, nil, answerFailed))
	checkAnswers(t, r, "at last", "1:a 2:- 3:b 4:-")
}

func TestWithoutContainerdEveryCgroupIsAnswered(t *testing.T) {
	tr, r := trackerFor(t)
	must(t, tr.facts(batch(1, "/default/a")))
	must(t, tr.setAway())
	must(t, tr.facts(batch(2, "/default/b")))
	checkAnswers(t, r, "away", "1:- 2:-")
	// What was known before it went stays, and is claimed.
	must(t, tr.connected())
	listed(t, tr, true, line("c", task.Status_RUNNING))
	tr.disconnected()
	must(t, tr.setAway())
	must(t, tr.facts(batch(3, "/default/c", 4, "/default/d")))
	checkAnswers(t, r, "away again", "1:- 2:- 3:c 4:-")
}

func TestNoCgroupWaitsForLong(t *testing.T) {
	tr, r := connectedTo(t)
	now := time.Unix(1000, 0)
	tr.now = func() time.Time { return now }
	must(t, tr.facts(batch(1, "/default/a")))
	q, _ := tr.nextDoubt()
	now = now.Add(claimPatience - 1)
	must(t, tr.expire())
	checkAnswers(t, r, "before", "")
	now = now.Add(1)
	must(t, tr.expire())
	checkAnswers(t, r, "after", "1:-")
	// The answer is taken all the same.
	must(t, tr.answerDoubt(q, stored("a"), answerOK))
	checkAnswers(t, r, "late", "1:a")
}

func TestSoManyCgroupsWaitOnly(t *testing.T) {
	tr, r := connectedTo(t)
	for i := range maxUnanswered + 100 {
		must(t, tr.facts(batch(i+1, fmt.Sprint("/default/c", i))))
	}
	if n := len(tr.unanswered); n > maxQuestions || len(tr.doubts) > maxQuestions {
		t.Errorf("%d wait, %d are asked about", n, len(tr.doubts))
	}
	if len(r.cgroups)+len(tr.unanswered) != maxUnanswered+100 {
		t.Errorf("%d were answered", len(r.cgroups))
	}
	for i := range maxCgroups {
		must(t, tr.facts(batch(i+1, fmt.Sprint("/other/c", i))))
	}
	must(t, tr.facts(batch(9999999, "/default/"+strings.Repeat("x", maxPath))))
	if n := len(tr.cgroups); n != maxCgroups {
		t.Errorf("%d are remembered", n)
	}
}

func TestANewContainerDoesNotGetTheCgroupOfAnEarlierOne(t *testing.T) {
	tr, r := connectedTo(t, line("a", task.Status_RUNNING))
	must(t, tr.facts(batch(1, "/default/a")))
	must(t, tr.event(eventOf("a", taskExited)))
	must(t, tr.event(eventOf("a", containerDeleted))) // the host has not told yet that the cgroup is gone
	must(t, tr.event(eventOf("a", containerCreated)))
	answerAll(t, tr, stored)
	if c := r.container("a"); c.CgroupId != 0 {
		t.Error(c)
	}
	must(t, tr.facts(batch(2, "/default/a")))
	must(t, tr.facts(removed(1, "/default/a")))
	must(t, tr.event(eventOf("a", taskStarted)))
	if c := r.container("a"); c.CgroupId != 2 {
		t.Error(c)
	}
}

func TestTheCgroupsOfOneNameAreToldApart(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.facts(batch(1, "/somewhere/a", 2, "/somewhere/a")))
	must(t, tr.facts(removed(1, "/somewhere/a")))
	must(t, tr.event(eventOf("a", containerCreated)))
	answerAll(t, tr, func(id string) *protov1.Container {
		c := stored(id)
		c.CgroupPath = "/somewhere/a"
		return c
	})
	if c := r.container("a"); c.CgroupId != 2 {
		t.Error(c)
	}
}

func TestAContainerThatMovesLosesItsEarlierCgroup(t *testing.T) {
	tr, r := connectedTo(t, line("a", task.Status_RUNNING))
	must(t, tr.event(eventOf("a", containerUpdated)))
	answerAll(t, tr, func(id string) *protov1.Container {
		c := stored(id)
		c.CgroupPath = "/elsewhere/a"
		return c
	})
	must(t, tr.facts(batch(1, "/default/a", 2, "/elsewhere/a")))
	checkAnswers(t, r, "", "1:- 2:a")
	if q, ok := tr.nextDoubt(); ok {
		t.Errorf("%v is asked for, although its cgroup is known", q.key)
	}
}

func TestCgroupsOfOtherNamespacesAreNotAskedAbout(t *testing.T) {
	r := newRecorder(t)
	tr := newTracker(r, scope{except: []string{"other"}}, testFilter())
	must(t, tr.connected())
	listed(t, tr, true)
	must(t, tr.facts(batch(1, "/other/a", 2, "/default/a")))
	checkAnswers(t, r, "", "1:-")
}

func TestAContainerFoundByItsCgroupIsNotGoneForAnOlderList(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.facts(batch(1, "/default/a")))
	q, _ := tr.nextDoubt()
	tr.beginList(false)
	must(t, tr.answerDoubt(q, stored("a"), answerOK))
	must(t, tr.endList(nil)) // it was made before
	if r.container("a") == nil {
		t.Error(r.log)
	}
}

func TestANewListOfCgroupsIsAnsweredWhole(t *testing.T) {
	tr, r := connectedTo(t, line("a", task.Status_RUNNING))
	must(t, tr.facts(batch(1, "/default/a", 2, "/gone")))
	clear(r.cgroups)
	must(t, tr.facts(&protov1.HostFacts{Facts: []*protov1.HostFact{{Fact: &protov1.HostFact_Reset_{Reset_: &protov1.Reset{}}}}}))
	must(t, tr.facts(batch(1, "/default/a", 3, "/new")))
	checkAnswers(t, r, "", "1:a 3:-")
	if len(tr.cgroups) != 2 {
		t.Error(tr.cgroups)
	}
}

func TestUnlikelyFactsDoNoHarm(t *testing.T) {
	tr, r := connectedTo(t, line("a", task.Status_RUNNING))
	for range 3 {
		must(t, tr.facts(&protov1.HostFacts{Facts: contract.HostileFacts()}))
	}
	must(t, tr.facts(batch(77, "/default/a")))
	if r.cgroups[77] != "a" {
		t.Error(answers(r))
	}
	must(t, tr.event(eventOf("b", containerCreated)))
	must(t, tr.facts(batch(78, ""))) // the root's
	must(t, tr.event(eventOf("b", taskStarted)))
	if id := r.container("b").CgroupId; id != 0 {
		t.Errorf("a container whose cgroup is not known has %d", id)
	}
}

func TestNamesThatAContainersCgroupMayHave(t *testing.T) {
	for path, want := range map[string]key{
		"/default/web1":                      {"default", "web1"},
		"/k8s.io/a.b_c-d":                    {"k8s.io", "a.b_c-d"},
		"/default":                           {},
		"/default/":                          {},
		"/":                                  {},
		"":                                   {},
		"/a/b/c":                             {},
		"/system.slice/ssh.service":          {},
		"/default/with space":                {},
		"/default/..":                        {},
		"/default/-x":                        {},
		"/default/x-":                        {},
		"/default/a..b":                      {},
		"/" + strings.Repeat("n", 77) + "/a": {},
	} {
		if got := named(path); got != want {
			t.Errorf("%q is named like %v, want %v", path, got, want)
		}
	}
}
