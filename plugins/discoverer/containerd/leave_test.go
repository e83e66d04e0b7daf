package main

import (
	"strings"
	"testing"
	"time"
)

// leaving gives a tracker a container that runs as its deletion is told, and its clock.
func leaving(t *testing.T) (*tracker, *recorder, *time.Time) {
	t.Helper()
	tr, r := connectedTo(t)
	now := time.Unix(1000, 0)
	tr.now = func() time.Time { return now }
	must(t, tr.event(eventOf("a", containerCreated)))
	answerAll(t, tr, stored)
	must(t, tr.event(eventOf("a", taskStarted)))
	must(t, tr.event(eventOf("a", containerDeleted)))
	r.log = nil
	return tr, r, &now
}

func checkTold(t *testing.T, r *recorder, want ...string) {
	t.Helper()
	if got := strings.Join(r.log, "; "); got != strings.Join(want, "; ") {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestAnEndThatIsToldAfterTheDeletionIsToldBeforeIt(t *testing.T) {
	tr, r, now := leaving(t)
	*now = now.Add(endPatience - 1)
	must(t, tr.leaveLate())
	checkTold(t, r)
	must(t, tr.event(eventOf("a", taskExited, ending(4))))
	must(t, tr.event(eventOf("a", taskExited, ending(4))))
	must(t, tr.event(eventOf("a", taskDeleted, ending(4))))
	must(t, tr.event(eventOf("a", taskPaused))) // no shim would say that
	must(t, tr.leaveLate())
	checkTold(t, r, "container a exited", "lifecycle a died exit_code=4", "lifecycle a removed", "remove a")
	if r.container("a") != nil || len(tr.containers)+len(tr.leaving) != 0 {
		t.Error("it is known again")
	}
	if _, ok := tr.next(); ok {
		t.Error("it is asked for")
	}
}

func TestNoDeletionWaitsForLong(t *testing.T) {
	alone := []string{"lifecycle a removed", "remove a"}
	t.Run("in time", func(t *testing.T) {
		tr, r, now := leaving(t)
		*now = now.Add(endPatience)
		must(t, tr.leaveLate())
		checkTold(t, r, alone...)
		must(t, tr.event(eventOf("a", taskExited, ending(4))))
		checkTold(t, r, alone...)
	})
	t.Run("as another takes its id", func(t *testing.T) {
		tr, r, now := leaving(t)
		must(t, tr.event(eventOf("a", containerCreated)))
		checkTold(t, r, append(alone, "container a created", "lifecycle a created")...)
		*now = now.Add(endPatience)
		must(t, tr.leaveLate())
		if r.container("a") == nil {
			t.Error("the later one is gone too")
		}
	})
	t.Run("as a list lacks it", func(t *testing.T) {
		tr, r, _ := leaving(t)
		listed(t, tr, false)
		checkTold(t, r, alone...)
	})
	t.Run("not in a snapshot, which tells what is there", func(t *testing.T) {
		tr, r, now := leaving(t)
		tr.disconnected()
		must(t, tr.connected())
		listed(t, tr, true)
		*now = now.Add(endPatience)
		must(t, tr.leaveLate())
		checkTold(t, r, "reset", "synced")
		if len(tr.containers)+len(tr.leaving) != 0 {
			t.Error("it is kept")
		}
	})
}

func TestADeletionThatALaterListContradictsIsForgotten(t *testing.T) {
	tr, r, _ := leaving(t)
	tr.beginList(false)
	must(t, tr.list(&[]found{line("a", 2)}[0])) // was made before the deletion, and came late
	must(t, tr.endList(nil))
	must(t, tr.event(eventOf("a", taskExited)))
	if r.container("a") != nil {
		t.Error("it stays for good")
	}
}
