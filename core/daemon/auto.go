package daemon

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// illEvery is the least time between two looks at how the discoverers are that run; as
// a rule it is their grace.
const illEvery = 5 * time.Second

// candidate is a discoverer that discoverer "auto" may start.
type candidate struct {
	sought
	entry pluginhost.Entry // with its files, if it is not skipped
	file  *config.File     // whose discoverer "auto" it is

	stirred atomic.Int32       // the largest change since it was last looked at
	there   func() bool        // tells whether something is at its sockets or paths
	unwatch func()             // nil: it is not watched
	self    *self              // nil: it has not described itself yet
	plugin  *pluginhost.Plugin // of one that runs
}

// self is what a discoverer says of itself, and its defaults.
type self struct {
	schema schema.Block
	config config.PluginConfig
}

// hands are what discoverer "auto" does to the world.
type hands interface {
	// ask asks a discoverer whether its runtime is here, in a process of its own, and
	// returns what it said of itself, if it did.
	ask(ctx context.Context, c *candidate) (answer, *self)
	// watch calls changed when something happens at a discoverer's sockets and paths,
	// until end.
	watch(c *candidate, changed func(another bool)) (there func() bool, end func())
	// alone runs f while nobody else changes which plugins run. It is false when the
	// run of the daemon ends before it can.
	alone(ctx context.Context, f func()) bool
	// start and stop are called by f of alone.
	start(ctx context.Context, c *candidate) error
	stop(c *candidate) error
	// ill tells that a discoverer that runs is not well, and cure has one tried again
	// that has failed.
	ill(c *candidate) bool
	cure(c *candidate)
}

// auto is discoverer "auto": it keeps those discoverers running whose runtimes are on
// this host. Its run is one goroutine, and those that ask.
type auto struct {
	hands hands
	log   *slog.Logger

	wake    chan struct{} // something is to be looked at; buffered
	answers chan answered

	mu       sync.Mutex
	seek     *seek // nil: the configuration has no discoverer "auto"
	all      []*candidate
	illCheck time.Time // when those that run are looked at next
	told     bool      // that all have been looked for
	over     bool      // the run has ended
}

// answered is what came of asking a candidate.
type answered struct {
	candidate *candidate
	answer    answer
	self      *self
}

func newAuto(h hands, log *slog.Logger) *auto {
	return &auto{hands: h, log: log, wake: make(chan struct{}, 1), answers: make(chan answered)}
}

// stir has run look at what has changed. It never blocks.
func (a *auto) stir() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// set makes candidates those that are looked for, in the place of others; nil settings
// end the search. What runs goes on. It is called while nobody else changes which
// plugins run.
func (a *auto) set(settings *config.Auto, others int, all []*candidate) {
	for _, c := range all {
		if c.skip == "" {
			c.there, c.unwatch = a.hands.watch(c, func(is bool) { a.noticed(c, is) })
		}
	}
	a.mu.Lock()
	old := a.all
	a.all, a.seek, a.told = all, nil, false
	switch {
	case a.over:
		old, a.all = append(old, all...), nil
	case settings != nil:
		a.seek = &seek{grace: settings.Grace, others: others}
		for _, c := range all {
			a.seek.all = append(a.seek.all, &c.sought)
		}
		a.seek.begin(time.Now())
	}
	a.mu.Unlock()
	for _, c := range old {
		a.drop(c)
	}
	a.stir()
}

// noticed notes a change at a candidate's sockets or paths, for run. It waits for nothing.
func (a *auto) noticed(c *candidate, is bool) {
	what := entries
	if is {
		what = another
	}
	for {
		was := c.stirred.Load()
		if was >= int32(what) || c.stirred.CompareAndSwap(was, int32(what)) {
			break
		}
	}
	a.stir()
}

// drop gives up a candidate.
func (a *auto) drop(c *candidate) {
	if c.unwatch != nil {
		c.unwatch()
	}
	a.giveBack(c)
}

// giveBack gives a candidate's files back, to be called for each of its users.
func (a *auto) giveBack(c *candidate) {
	if c.entry.Bundle == nil {
		return
	}
	if err := c.entry.Bundle.Close(); err != nil {
		a.log.Error("give back the files of a plugin", "plugin", c.ref(), "error", err)
	}
}

// end gives up all candidates, and those that come later.
func (a *auto) end() {
	a.mu.Lock()
	a.over = true
	a.mu.Unlock()
	a.set(nil, 0, nil)
}

// run looks for runtimes until ctx is done.
func (a *auto) run(ctx context.Context) {
	var asking sync.WaitGroup
	defer func() {
		asking.Wait()
		a.end()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-timer.C:
		case r := <-a.answers:
			a.take(r)
		}
		for _, c := range a.ask(time.Now()) {
			asking.Go(func() {
				defer a.giveBack(c)
				r := answered{candidate: c}
				r.answer, r.self = a.hands.ask(ctx, c)
				select {
				case a.answers <- r:
				case <-ctx.Done():
				}
			})
		}
		if start, stop := a.todo(time.Now()); len(start)+len(stop) == 0 {
			timer.Reset(a.wait(time.Now()))
			continue
		}
		if !a.hands.alone(ctx, func() { a.act(ctx) }) {
			return
		}
		timer.Reset(0)
	}
}

// ask notes what has changed, and says whom to ask now. Their files are held.
func (a *auto) ask(now time.Time) []*candidate {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seek == nil {
		return nil
	}
	check := !now.Before(a.illCheck)
	if check {
		a.illCheck = now.Add(max(a.seek.grace, illEvery))
	}
	for _, c := range a.all {
		what := change(c.stirred.Swap(0))
		if what == another && c.running {
			a.hands.cure(c)
		}
		if check && c.running && a.hands.ill(c) {
			what = another
		}
		a.seek.changed(&c.sought, what, now)
	}
	var out []*candidate
	for _, s := range a.seek.ask(now) {
		c := a.of(s)
		if c.entry.Bundle != nil {
			c.entry.Bundle.Hold()
		}
		out = append(out, c)
	}
	return out
}

// of is the candidate of what is sought. mu is held.
func (a *auto) of(s *sought) *candidate {
	return a.all[slices.IndexFunc(a.all, func(c *candidate) bool { return &c.sought == s })]
}

// take takes an answer. One of a candidate that is looked for no longer says nothing.
func (a *auto) take(r answered) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := r.candidate
	if a.seek == nil || !slices.Contains(a.all, c) {
		return
	}
	first := c.failures == 0
	a.seek.answer(&c.sought, r.answer, time.Now())
	if r.self != nil {
		c.self = r.self
	}
	log := a.log.With("plugin", c.ref())
	switch {
	case c.skip != "":
		log.Info("a discoverer can't be started by itself", "reason", c.skip)
	case c.failure != "" && first:
		log.Warn("a discoverer could not be asked whether its runtime is here; it is asked again", "reason", c.failure)
	default:
		log.Debug("a discoverer was asked whether its runtime is here", "present", c.present, "detail", c.detail, "error", c.failure)
	}
	if !a.told && a.seek.settled() {
		a.told = true
		a.tell()
	}
}

func (c *candidate) ref() string {
	return config.PluginRef{Kind: config.Discoverer, Name: c.name}.String()
}

// tell logs what came of looking for all. mu is held.
func (a *auto) tell() {
	var here, not, skipped []string
	for _, c := range a.all {
		switch {
		case c.skip != "":
			skipped = append(skipped, c.name+": "+c.skip)
		case c.present:
			here = append(here, c.name)
		default:
			not = append(not, c.name)
		}
	}
	a.log.Info(`discoverer "auto" has looked for all runtimes`, "found", here, "not_found", not, "skipped", skipped)
}

// act starts and stops what is to be started and stopped now.
func (a *auto) act(ctx context.Context) {
	now := time.Now()
	start, stop := a.todo(now)
	for _, c := range stop {
		log := a.log.With("plugin", c.ref())
		log.Info("a discoverer is stopped, for "+c.whyStopped(), "detail", c.detail)
		if err := a.hands.stop(c); err != nil {
			log.Error("stop a discoverer", "error", err)
		}
		a.runs(c, false)
	}
	for _, c := range start {
		if ctx.Err() != nil {
			return
		}
		log := a.log.With("plugin", c.ref())
		if err := a.hands.start(ctx, c); err != nil {
			log.Error("start a discoverer", "error", err)
			a.mu.Lock()
			c.skip = "it could not be started: " + err.Error()
			a.mu.Unlock()
			continue
		}
		a.runs(c, true)
		log.Info("a discoverer is started, for "+c.whyStarted(), "found", c.found())
	}
}

// todo are those that are to be started and stopped now.
func (a *auto) todo(now time.Time) (start, stop []*candidate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seek == nil {
		return nil, nil
	}
	s, t := a.seek.decide(now)
	for _, c := range s {
		start = append(start, a.of(c))
	}
	for _, c := range t {
		stop = append(stop, a.of(c))
	}
	return start, stop
}

func (a *auto) runs(c *candidate, does bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c.running, c.lost = does, time.Time{}
}

// wait is how long there is nothing to do, unless something happens.
func (a *auto) wait(now time.Time) time.Duration {
	const long = time.Hour
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seek == nil {
		return long
	}
	next := a.seek.next(now)
	if slices.ContainsFunc(a.all, func(c *candidate) bool { return c.running }) && (next.IsZero() || a.illCheck.Before(next)) {
		next = a.illCheck
	}
	if next.IsZero() {
		return long
	}
	return max(next.Sub(now), 0)
}

// lookedFor is how a candidate is that discoverer "auto" looks for.
type lookedFor struct {
	name    string
	running bool
	found   string // of one that runs
	state   string // of one that does not: absent, unknown, skipped
	reason  string
	since   time.Time // it was asked last; zero: never
}

// lookedFor are all candidates.
func (a *auto) lookedFor() []lookedFor {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]lookedFor, 0, len(a.all))
	for _, c := range a.all {
		l := lookedFor{name: c.name, running: c.running, since: c.answered}
		if c.running {
			l.found = c.found()
		} else {
			l.state, l.reason = c.state()
		}
		out = append(out, l)
	}
	return out
}
