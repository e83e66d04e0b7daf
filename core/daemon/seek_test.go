package daemon

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// searched is a seek with a clock of its own, whose discoverers answer as is written down.
type searched struct {
	*seek
	t     *testing.T
	now   time.Time
	says  map[string]answer // by name
	asked []string          // since it was last looked at
	did   []string          // likewise: what was started and stopped
}

// newSearch looks for discoverers; a name that ends in ! is one to fall back to.
func newSearch(t *testing.T, others int, names ...string) *searched {
	s := &searched{t: t, seek: &seek{grace: 30 * time.Second, others: others}, now: time.Unix(1000, 0), says: map[string]answer{}}
	for _, n := range names {
		name, fallback := strings.CutSuffix(n, "!")
		s.all = append(s.all, &sought{name: name, fallback: fallback})
		s.says[name] = answer{ready: true, detail: "nothing"}
	}
	s.begin(s.now)
	return s
}

func (s *searched) of(name string) *sought {
	for _, c := range s.all {
		if c.name == name {
			return c
		}
	}
	s.t.Fatalf("no %s", name)
	return nil
}

// here and gone are what a discoverer says from now on, with the news of it.
func (s *searched) here(name string) {
	s.says[name] = answer{ready: true, present: true, detail: "at its socket", there: true}
	s.changed(s.of(name), another, s.now)
}

func (s *searched) gone(name string) {
	s.says[name] = answer{ready: true, detail: "nothing"}
	s.changed(s.of(name), another, s.now)
}

// step asks and does what is due at this moment.
func (s *searched) step() {
	for {
		now := s.ask(s.now)
		for _, c := range now {
			s.asked = append(s.asked, c.name)
			s.answer(c, s.says[c.name], s.now)
		}
		start, stop := s.decide(s.now)
		for _, c := range start {
			c.running = true
			s.did = append(s.did, "+"+c.name)
		}
		for _, c := range stop {
			c.running, c.lost = false, time.Time{}
			s.did = append(s.did, "-"+c.name)
		}
		if len(now)+len(start)+len(stop) == 0 {
			return
		}
	}
}

// pass lets time pass, waking when the search wants to.
func (s *searched) pass(d time.Duration) {
	s.t.Helper()
	end := s.now.Add(d)
	s.step()
	for n := 0; ; n++ {
		next := s.next(s.now)
		if next.IsZero() || next.After(end) {
			break
		}
		if n > 10000 {
			s.t.Fatal("it never rests")
		}
		if next.After(s.now) {
			s.now = next
		}
		s.step()
	}
	s.now = end
	s.step()
}

func (s *searched) check(when, asked, did string) {
	s.t.Helper()
	if got := strings.Join(s.asked, " "); got != asked {
		s.t.Errorf("%s: asked are %q, want %q", when, got, asked)
	}
	if got := strings.Join(s.did, " "); got != did {
		s.t.Errorf("%s: it did %q, want %q", when, got, did)
	}
	s.asked, s.did = nil, nil
}

func TestARuntimeThatComesIsFoundAndOneThatGoesIsLeftAfterItsGrace(t *testing.T) {
	s := newSearch(t, 0, "a", "b")
	s.pass(time.Hour)
	s.check("nothing is here", "a b", "")
	s.here("b")
	s.pass(time.Hour)
	s.check("b has come", "b", "+b")
	s.gone("b")
	s.pass(29 * time.Second)
	s.check("b has gone", "b", "")
	s.pass(time.Second)
	s.check("its grace has passed", "b", "-b")
	s.here("b")
	s.pass(time.Hour)
	s.check("b has come again", "b", "+b")
}

func TestARuntimeThatIsBackInTimeKeepsItsDiscoverer(t *testing.T) {
	s := newSearch(t, 0, "a")
	s.here("a")
	s.pass(time.Hour)
	s.check("it is here", "a", "+a")
	for range 3 {
		s.gone("a")
		s.pass(20 * time.Second)
		s.here("a")
		s.pass(20 * time.Second)
	}
	s.check("it was gone three times", "a a a a a a", "")
	// Back without a word, which the question at the end finds out.
	s.gone("a")
	s.pass(time.Second)
	s.says["a"] = answer{ready: true, present: true, detail: "at its socket"}
	s.pass(time.Hour)
	s.check("back without a word", "a a", "")
}

func TestWithoutGraceARuntimeThatIsGoneIsLeftAtOnce(t *testing.T) {
	s := newSearch(t, 0, "a")
	s.grace = 0
	s.here("a")
	s.pass(time.Second)
	s.gone("a")
	s.pass(time.Second)
	s.check("it has gone", "a a", "+a -a")
}

func TestTheOneToFallBackToRunsWhereThereIsNoOther(t *testing.T) {
	s := newSearch(t, 0, "a", "last!", "b")
	s.says["b"] = answer{err: errors.New("it hangs")}
	s.step()
	s.check("none is here", "a last b", "+last")
	why := func(name, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("why %s: %q, want %q", name, got, want)
		}
	}
	why("last is started", s.of("last").whyStarted(), "there is no other")
	s.here("a")
	s.pass(time.Second)
	s.check("another has come", "a b b", "+a")
	s.pass(30 * time.Second)
	if got := strings.Join(s.did, " "); got != "-last" {
		t.Errorf("another has come and stays: %s", got)
	}
	why("last is stopped", s.of("last").whyStopped(), "there is another, and nothing that is its own")
	s.asked, s.did = nil, nil
	s.gone("a")
	s.pass(20 * time.Second)
	if strings.Contains(strings.Join(s.did, " "), "last") {
		t.Errorf("before the other's grace has passed: %v", s.did)
	}
	s.asked, s.did = nil, nil
	s.pass(20 * time.Second)
	if got := strings.Join(s.did, " "); got != "-a +last" {
		t.Errorf("when the other has gone: %s", got)
	}
	why("a is stopped", s.of("a").whyStopped(), "its runtime is gone")

	s = newSearch(t, 0, "a", "last!")
	s.here("a")
	s.here("last")
	s.pass(time.Hour)
	s.check("what it finds itself counts too", "a last", "+a +last")
	why("last is started", s.of("last").whyStarted(), "its runtime is here")

	s = newSearch(t, 1, "a", "last!")
	s.pass(time.Hour)
	s.check("one that the file names is another", "a last", "")
}

func TestNothingFallsBackBeforeAllHaveAnswered(t *testing.T) {
	s := newSearch(t, 0, "a", "last!")
	asked := s.ask(s.now)
	s.answer(s.of("last"), answer{ready: true}, s.now)
	if start, _ := s.decide(s.now); len(asked) != 2 || len(start) > 0 {
		t.Errorf("asked are %d, started %d", len(asked), len(start))
	}
	s.answer(s.of("a"), answer{err: errors.New("it hangs")}, s.now)
	if start, _ := s.decide(s.now); len(start) != 1 {
		t.Errorf("started are %d", len(start))
	}

	s = newSearch(t, 0, "last!")
	s.says["last"] = answer{err: errors.New("it did not start")}
	s.pass(time.Hour)
	if len(s.did) > 0 {
		t.Errorf("of one that has never said how it is configured: %v", s.did)
	}
}

func TestWhoDoesNotAnswerIsAskedMoreAndMoreSeldomAndIsNoReasonToStop(t *testing.T) {
	s := newSearch(t, 0, "a")
	s.here("a")
	s.pass(time.Second)
	s.says["a"] = answer{err: errors.New("it hangs")}
	s.changed(s.of("a"), another, s.now)
	s.asked, s.did = nil, nil
	s.pass(time.Hour)
	if n := len(s.asked); n < 60 || n > 72 || len(s.did) > 0 {
		t.Errorf("in an hour it was asked %d times, and %v done", n, s.did)
	}
	s.asked = nil
	s.changed(s.of("a"), another, s.now)
	s.pass(time.Second)
	s.check("something has changed", "a a a", "")

	// One that said that it is gone, and then nothing more, is.
	s.says["a"] = answer{}
	s.changed(s.of("a"), another, s.now)
	s.pass(time.Second)
	s.says["a"] = answer{err: errors.New("it hangs")}
	s.asked = nil
	s.pass(time.Hour)
	if strings.Join(s.did, " ") != "-a" {
		t.Errorf("it did %v", s.did)
	}
}

func TestARuntimeThatIsJustStartingIsAskedForAFewTimesMore(t *testing.T) {
	s := newSearch(t, 0, "a")
	s.says["a"] = answer{ready: true, detail: "refused", there: true}
	s.pass(time.Hour)
	s.check("its socket is there, and nobody listens", "a a a a a a", "")
	s.changed(s.of("a"), another, s.now)
	s.pass(time.Second)
	s.says["a"] = answer{ready: true, present: true, there: true}
	s.pass(time.Hour)
	s.check("now somebody does", "a a a a", "+a")
}

func TestADirectoryWhereMuchHappensIsNoReasonToAskAllTheTime(t *testing.T) {
	s := newSearch(t, 0, "a")
	for range 6000 { // ten minutes
		s.changed(s.of("a"), entries, s.now)
		s.pass(100 * time.Millisecond)
	}
	if n := len(s.asked); n < 20 || n > 30 {
		t.Errorf("it was asked %d times", n)
	}
	s.asked = nil
	s.here("a") // which is another thing
	s.pass(askPause)
	s.check("its socket has come", "a", "+a")
	s.pass(time.Hour)
	s.asked = nil
	s.changed(s.of("a"), entries, s.now)
	s.pass(askPause)
	s.check("after a quiet hour", "a", "")
}

func TestWhatChangesDuringAQuestionIsAskedAboutAfterIt(t *testing.T) {
	s := newSearch(t, 0, "a")
	s.ask(s.now)
	s.here("a")
	s.pass(time.Second)
	s.check("while it is asked", "", "")
	s.answer(s.of("a"), answer{}, s.now)
	s.pass(time.Second)
	s.check("afterwards", "a", "+a")
}

func TestFewAreAskedAtATime(t *testing.T) {
	var names []string
	for n := range 20 {
		names = append(names, fmt.Sprintf("p%d", n))
	}
	s := newSearch(t, 0, names...)
	all := 0
	for range 20 {
		now := s.ask(s.now)
		if len(now) > askedAtOnce || len(s.ask(s.now)) > 0 {
			t.Fatalf("%d are asked at a time", len(now))
		}
		if next := s.next(s.now); !next.IsZero() {
			t.Errorf("while %d are asked the others wait until %v, and not for an answer", len(now), next)
		}
		for _, c := range now {
			s.answer(c, answer{}, s.now)
			all++
		}
	}
	if all != 20 || !s.settled() || !s.next(s.now).IsZero() {
		t.Errorf("asked are %d, settled %v", all, s.settled())
	}
}

func TestWhatCannotBeStartedIsNeitherAskedNorStarted(t *testing.T) {
	s := newSearch(t, 0, "a", "b", "last!")
	s.of("a").skip = "it is not in the lock file"
	s.of("a").due = time.Time{}
	s.says["b"] = answer{skip: "it needs arguments"}
	s.pass(time.Second)
	s.check("at first", "b last", "+last")
	s.here("a")
	s.here("b")
	s.pass(time.Hour)
	s.check("later", "", "")
	for name, want := range map[string]string{"a": "skipped: it is not in the lock file", "b": "skipped: it needs arguments"} {
		if state, reason := s.of(name).state(); state+": "+reason != want {
			t.Errorf("%s is %s: %s", name, state, reason)
		}
	}
	if got := s.of("last").found(); got != "nothing else is here" {
		t.Errorf("the last is found: %q", got)
	}
}

func TestWhatIsSaidOfOneThatDoesNotRun(t *testing.T) {
	s := newSearch(t, 0, "a")
	c := s.of("a")
	for _, step := range []struct {
		answer answer
		want   string
	}{
		{answer{detail: "no socket"}, "absent: no socket"},
		{answer{err: errors.New("it crashed")}, "unknown: it crashed"},
		{answer{detail: "no socket"}, "absent: no socket"},
	} {
		s.answer(c, step.answer, s.now)
		if state, reason := c.state(); state+": "+reason != step.want {
			t.Errorf("%s: %s, want %s", state, reason, step.want)
		}
	}
}
