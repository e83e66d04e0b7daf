package main

import (
	"strings"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// All of its life may pass before the store is asked what it has of it.
func TestACgroupOfAContainerThatTheStoreHadNoMoreIsKnownByItsName(t *testing.T) {
	const born, died, asked = 1000, 2000, 3000
	long := strings.Repeat("a1", 32)
	at := func(nano int64) func(*event) { return func(e *event) { e.nano = nano } }
	made := func(id int, path string, nano int64) *protov1.HostFacts {
		b := batch(id, path)
		b.Facts[0].GetCgroup().TimeUnixNano = nano
		return b
	}
	gone := func(string) *protov1.Container { return nil }
	live := func(t *testing.T, id string) (*tracker, *recorder) {
		tr, r := connectedTo(t)
		tr.now = func() time.Time { return time.Unix(0, asked) }
		must(t, tr.event(eventOf(id, containerCreated, at(born))))
		must(t, tr.event(eventOf(id, taskCreated)))
		must(t, tr.event(eventOf(id, taskExited, ending(0))))
		return tr, r
	}
	end := func(t *testing.T, tr *tracker, id string) {
		must(t, tr.event(eventOf(id, containerDeleted, at(died))))
	}
	whole := func(t *testing.T, tr *tracker, r *recorder, id, want string) {
		t.Helper()
		checkAnswers(t, r, "in the end", want)
		if r.container(id) != nil || len(tr.containers)+len(tr.leaving)+len(tr.asking)+len(tr.unread)+len(tr.unanswered)+len(tr.byPath) != 0 {
			t.Error("it is still there")
		}
		if got := strings.Join(r.lines("lifecycle"), "; "); got != strings.ReplaceAll("lifecycle ID created; lifecycle ID died exit_code=0; lifecycle ID removed", "ID", id[:min(len(id), 12)]) {
			t.Error(got)
		}
	}
	t.Run("told of after its deletion", func(t *testing.T) {
		tr, r := live(t, "a")
		end(t, tr, "a")
		answerAll(t, tr, gone)
		must(t, tr.facts(made(1, "/default/a", born+1)))
		must(t, tr.facts(removed(1, "/default/a")))
		whole(t, tr, r, "a", "1:a")
	})
	t.Run("told of before the store's answer", func(t *testing.T) {
		tr, r := live(t, long)
		must(t, tr.facts(made(1, "/x.slice/cri-containerd-"+long+".scope", born+1)))
		must(t, tr.facts(removed(1, "/x.slice/cri-containerd-"+long+".scope")))
		end(t, tr, long)
		checkAnswers(t, r, "before it", "")
		answerAll(t, tr, gone)
		whole(t, tr, r, long, "1:"+long)
	})
	t.Run("told of between the answer and the deletion", func(t *testing.T) {
		tr, r := live(t, "a")
		answerAll(t, tr, gone)
		must(t, tr.facts(made(1, "/default/a", born+1)))
		end(t, tr, "a")
		whole(t, tr, r, "a", "1:a")
	})
	t.Run("unless it was made at another time, or elsewhere by who could guess it", func(t *testing.T) {
		tr, r := live(t, "a")
		answerAll(t, tr, gone)
		must(t, tr.facts(made(9, "/default/a", asked+1)))
		end(t, tr, "a")
		must(t, tr.facts(made(1, "/default/a", born-1)))
		must(t, tr.facts(made(2, "/default/a", died+1)))
		must(t, tr.facts(made(3, "/default/a/b", born+1)))
		must(t, tr.facts(made(4, "/other/a", born+1)))
		must(t, tr.facts(made(5, "/user.slice/x/a", born+1)))
		must(t, tr.facts(made(6, "/x.slice/cri-containerd-b-a.scope", born+1)))
		must(t, tr.facts(made(7, "/default/a", 0)))
		if q, ok := tr.nextDoubt(); ok { // of /other/a
			must(t, tr.answerDoubt(q, nil, answerGone))
		}
		tr.now = func() time.Time { return time.Unix(0, asked).Add(endPatience) }
		must(t, tr.leaveLate())
		whole(t, tr, r, "a", "1:- 2:- 3:- 4:- 5:- 6:- 7:- 9:-")
	})
	t.Run("and no deletion waits for one that never ran", func(t *testing.T) {
		tr, r := connectedTo(t)
		must(t, tr.event(eventOf("a", containerCreated)))
		answerAll(t, tr, gone)
		must(t, tr.event(eventOf("a", containerDeleted)))
		if r.container("a") != nil || len(tr.containers)+len(tr.leaving)+len(tr.unread) != 0 {
			t.Error("it is still there")
		}
	})
	t.Run("nor is a record that was read taken back", func(t *testing.T) {
		tr, r := live(t, "a")
		answerAll(t, tr, stored)
		must(t, tr.event(eventOf("a", containerUpdated)))
		answerAll(t, tr, gone)
		must(t, tr.facts(made(1, "/mine/a", born+1)))
		if q, ok := tr.nextDoubt(); ok {
			must(t, tr.answerDoubt(q, nil, answerGone))
		}
		must(t, tr.facts(made(2, "/default/a", born+1)))
		checkAnswers(t, r, "", "1:- 2:a")
	})
	t.Run("until containerd goes away", func(t *testing.T) {
		tr, _ := live(t, "a")
		answerAll(t, tr, gone)
		tr.disconnected()
		if len(tr.unread) != 0 {
			t.Error("it is remembered")
		}
	})
}

// All is known of it, and the store has nothing to add.
func TestACgroupOfAContainerThatIsGoneIsNotAskedFor(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(eventOf("a", containerCreated)))
	answerAll(t, tr, stored)
	must(t, tr.event(eventOf("a", containerDeleted, func(e *event) { e.nano = 1000 })))
	for n, at := range []int64{1000, 1001, 0} { // the last two may be another's of its id
		b := batch(n+1, "/default/a")
		b.Facts[0].GetCgroup().TimeUnixNano = at
		must(t, tr.facts(b))
	}
	checkAnswers(t, r, "", "1:-")
	if len(tr.doubts) != 2 {
		t.Errorf("asked for are %v", tr.doubts)
	}
}

func TestACgroupOfAnEarlierContainerOfTheSameIdIsNotTheLaterOnes(t *testing.T) {
	tr, r := connectedTo(t)
	later := stored("a")
	later.CreatedUnixNano = 1000
	must(t, tr.event(eventOf("a", containerCreated)))
	for n, at := range []int64{999, 1001} {
		b := batch(n+1, "/default/a")
		b.Facts[0].GetCgroup().TimeUnixNano = at
		must(t, tr.facts(b))
		must(t, tr.facts(removed(uint64(n+1), "/default/a")))
	}
	must(t, tr.event(eventOf("a", taskExited)))
	must(t, tr.event(eventOf("a", containerDeleted)))
	answerAll(t, tr, func(string) *protov1.Container { return later })
	checkAnswers(t, r, "", "1:- 2:a")
}
