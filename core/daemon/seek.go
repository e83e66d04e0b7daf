package daemon

import (
	"slices"
	"strings"
	"time"
)

// How discoverers are asked whether their runtimes are here.
const (
	askedAtOnce = 4                      // at a time: each is a process
	askPause    = 100 * time.Millisecond // between two questions to one, at least
	// A question that came to nothing is asked again after a pause, each twice the last.
	askAgain    = 250 * time.Millisecond
	askAgainMax = time.Minute
	// A runtime whose socket is there and that does not answer may be about to: it is
	// asked for a few times more.
	askAbsent = 5
	// Where entries of a directory change all the time, and the answer is the same each
	// time, the question is asked more and more seldom; after a quiet minute as at first.
	askSame    = time.Second
	askSameMax = 30 * time.Second
	quiet      = time.Minute
)

// sought is a discoverer that may be started when its runtime is here, and what is known
// of that.
type sought struct {
	name     string
	fallback bool   // it is also wanted where there is no other
	skip     string // why it is neither asked nor started; "": it may be

	asking   bool
	asked    bool      // at least once, whatever came of it
	ready    bool      // how it would be configured is known
	present  bool      // by its last answer
	detail   string    // of that answer
	failure  string    // of the last question; "": it was answered
	at       time.Time // of the last question
	answered time.Time // when that was over
	due      time.Time // of the next question; zero: when something changes
	failures int       // of questions, in a row
	vain     int       // questions, in a row, about a runtime whose socket is there
	same     int       // questions, in a row, that brought no news
	again    change    // what changed while it was asked

	running bool
	lost    time.Time // since when it runs though nothing says that it should; zero: something does
}

// change is what happened at the sockets and paths of a discoverer.
type change int

const (
	none    change = iota
	entries        // of a directory
	another        // something came, went, or took another's place
)

// answer is what came of a question.
type answer struct {
	present bool
	detail  string
	err     error  // it did not answer
	ready   bool   // how it would be configured is known
	skip    string // it turned out that it can't be started; "": it can
	there   bool   // something is at its sockets or paths
}

// seek decides which discoverers are asked, started and stopped, and when. It knows no
// clock and does nothing by itself. One goroutine uses it at a time.
type seek struct {
	grace  time.Duration
	others int // discoverers that the file names
	all    []*sought
}

// begin has all asked.
func (s *seek) begin(now time.Time) {
	for _, c := range s.all {
		if c.skip == "" {
			c.due = now
		}
	}
}

// changed notes that something happened at a discoverer's sockets or paths.
func (s *seek) changed(c *sought, what change, now time.Time) {
	switch {
	case what == none || c.skip != "":
		return
	case c.asking:
		c.again = max(c.again, what)
		return
	}
	wait := askPause
	if what == another {
		c.failures, c.vain = 0, 0
	} else if now.Sub(c.at) < quiet {
		wait = doubled(askSame, askSameMax, c.same)
	}
	due := c.at.Add(wait)
	if due.Before(now) {
		due = now
	}
	if c.due.IsZero() || due.Before(c.due) {
		c.due = due
	}
}

// doubled is a pause that was doubled a number of times.
func doubled(first, most time.Duration, times int) time.Duration {
	if times > 20 || first<<times > most {
		return most
	}
	return first << times
}

// ask says which are to be asked now, and takes them for being asked.
func (s *seek) ask(now time.Time) []*sought {
	room := askedAtOnce
	var out []*sought
	for _, c := range s.all {
		switch {
		case c.asking:
			room--
		case c.skip == "" && !c.due.IsZero() && !c.due.After(now):
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b *sought) int { return a.due.Compare(b.due) })
	out = out[:min(len(out), max(room, 0))]
	for _, c := range out {
		c.asking, c.at, c.due = true, now, time.Time{}
	}
	return out
}

// answer takes what came of a question.
func (s *seek) answer(c *sought, a answer, now time.Time) {
	c.asking, c.asked, c.answered = false, true, now
	c.ready = c.ready || a.ready
	was := c.present
	switch {
	case a.skip != "":
		c.skip, c.present, c.failure, c.again = a.skip, false, "", none
		return
	case a.err != nil:
		c.failure = a.err.Error()
		c.due = now.Add(doubled(askAgain, askAgainMax, c.failures))
		c.failures++
	default:
		c.present, c.detail, c.failure, c.failures = a.present, a.detail, "", 0
		if !a.present && a.there && c.vain < askAbsent {
			c.due = now.Add(doubled(askAgain, askAgainMax, c.vain))
			c.vain++
		}
	}
	if c.present == was {
		c.same++
	} else {
		c.same = 0
	}
	if a.present {
		c.vain = 0
	}
	what := c.again
	c.again = none
	s.changed(c, what, now)
}

// wanted tells whether a discoverer should run, as far as is known.
func (s *seek) wanted(c *sought) bool {
	switch {
	case c.skip != "" || !c.ready && !c.running:
		return false
	case c.present:
		return true
	case !c.fallback || s.others > 0:
		return false
	}
	return !slices.ContainsFunc(s.all, func(o *sought) bool {
		return !o.fallback && o.skip == "" && (!o.asked || o.present || o.running)
	})
}

// decide says which discoverers are to be started and stopped now. One that is not
// wanted any more is asked once again when its grace has passed, and stopped then.
func (s *seek) decide(now time.Time) (start, stop []*sought) {
	for _, c := range s.all {
		switch {
		case s.wanted(c):
			c.lost = time.Time{}
			if !c.running {
				start = append(start, c)
			}
			continue
		case !c.running:
			continue
		case c.skip != "":
			stop = append(stop, c)
			continue
		}
		if c.lost.IsZero() {
			c.lost = now
		}
		end := c.lost.Add(s.grace)
		switch {
		case now.Before(end) || c.asking:
		case c.at.Before(end):
			if c.due.IsZero() || c.due.After(now) {
				c.due = now
			}
		default:
			stop = append(stop, c)
		}
	}
	return start, stop
}

// next is when there may be something to do without anything having happened, after
// what was to be done now; zero: not.
func (s *seek) next(now time.Time) time.Time {
	var next time.Time
	room := askedAtOnce
	for _, c := range s.all {
		if c.asking {
			room--
		}
	}
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, c := range s.all {
		if c.asking {
			continue // its answer is something
		}
		if room > 0 { // else an answer makes some
			sooner(c.due)
		}
		if end := c.lost.Add(s.grace); c.running && !c.lost.IsZero() && end.After(now) {
			sooner(end)
		}
	}
	return next
}

// settled tells whether all have been asked.
func (s *seek) settled() bool {
	return !slices.ContainsFunc(s.all, func(c *sought) bool { return c.skip == "" && !c.asked })
}

// state is how a discoverer is that does not run, and why.
func (c *sought) state() (state, reason string) {
	switch {
	case c.skip != "":
		return "skipped", c.skip
	case c.failure != "":
		return "unknown", c.failure
	case !c.asked:
		return "unknown", "it is being asked"
	}
	return "absent", c.detail
}

// whyStarted is why one that was just started is wanted.
func (c *sought) whyStarted() string {
	if c.present {
		return "its runtime is here"
	}
	return "there is no other"
}

// whyStopped is why one that was just stopped is not wanted any more.
func (c *sought) whyStopped() string {
	switch {
	case c.skip != "":
		return "it can't be started by itself"
	case c.fallback:
		return "there is another, and nothing that is its own"
	}
	return "its runtime is gone"
}

// found is where its runtime is, or why it runs without one.
func (c *sought) found() string {
	switch {
	case c.present && c.detail != "":
		return c.detail
	case c.present:
		return "it is here"
	case c.running && c.fallback && c.lost.IsZero():
		return "nothing else is here"
	}
	return "it was here: " + strings.TrimSpace(c.detail)
}
