package main

import (
	"slices"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	// patience is how long a new cgroup waits for the state of the container after which
	// it is called. The daemon holds events of a cgroup for half a second: some of that is
	// left for a host so busy that a runtime takes longer, or that answers are held up.
	patience = 100 * time.Millisecond
	// longest is how long one waits that is called after none: a busy host's runtime
	// may take its time.
	longest = 2 * time.Second
	// maxGraves bounds the containers that are remembered which were gone before anything
	// was known of them.
	maxGraves = 256
	// maxWaiting bounds the cgroups that wait; what comes beyond is answered at once.
	maxWaiting = 4096
)

// claims are the cgroups that are yet to be answered for.
//
// A runtime makes a container's directory, then its cgroup, and then writes the state
// that tells which cgroup that is. So a new cgroup is of a container that is known, or
// of one whose directory was there when the cgroup was heard of and whose state is yet
// to be written, or of none.
type claims struct {
	waiting []waiting
	looked  time.Time // when all that wait were looked at last
	news    bool      // of containers, since then
	graves  []grave
	hurried int // answered without waiting, for there were too many
}

// grave is of a container whose directory came and went unseen, as when this process was
// held up. Its cgroup may be heard of yet.
type grave struct {
	container *container
	at        time.Time
}

type waiting struct {
	fact    *protov1.CgroupFact
	order   uint64 // containers up to this one can be meant
	since   time.Time
	removed int64 // when it was, ns; 0: it is there. Its events still wait for the answer
}

// fact takes what the host tells of a cgroup.
func (t *tracker) fact(f *protov1.CgroupFact) error {
	if f.GetHierarchy() != "" {
		return t.inv.Considered(f.GetId())
	}
	if f.GetChange() == protov1.CgroupFact_CHANGE_REMOVED {
		for i := range t.claims.waiting {
			if w := &t.claims.waiting[i]; w.fact.GetId() == f.GetId() {
				w.removed = max(1, f.GetTimeUnixNano())
			}
		}
		if c := t.byCgroup[f.GetId()]; c != nil {
			c.gone = true
			return t.feel(c)
		}
		return nil
	}
	for c := range t.unplaced {
		if !c.root.trusted && c.path == f.GetPath() {
			if err := t.feel(c); err != nil { // now it is seen whose it is
				return err
			}
		}
	}
	if c := t.owner(f); c != nil {
		return t.claim(c, f)
	}
	if len(t.creating) == 0 && len(t.unplaced) == 0 && len(t.claims.graves) == 0 {
		return t.inv.Considered(f.GetId())
	}
	if len(t.claims.waiting) >= maxWaiting {
		t.claims.hurried++
		return t.inv.Considered(f.GetId())
	}
	now := time.Now()
	w := waiting{fact: f, order: t.order, since: now}
	// The daemon's patience began with the cgroup, however long this took to be heard.
	if at := time.Unix(0, f.GetTimeUnixNano()); at.Before(now) && now.Sub(at) < longest {
		w.since = at
	}
	done, err := t.answer(w, now)
	if !done {
		t.claims.waiting = append(t.claims.waiting, w)
	}
	return err
}

// owner is the container whose state names a cgroup.
func (t *tracker) owner(f *protov1.CgroupFact) *container {
	if c := t.byCgroup[f.GetId()]; c != nil {
		return c
	}
	c := t.byPath[f.GetPath()]
	if c == nil || c.phase == protov1.Container_STATE_EXITED && f.GetChange() == protov1.CgroupFact_CHANGE_CREATED && len(t.creating) > 0 {
		return nil // its cgroup is gone, and another's has its path
	}
	return c
}

// claim answers that a cgroup is a container's.
func (t *tracker) claim(c *container, f *protov1.CgroupFact) error {
	if !c.root.trusted && c.cgroup != f.GetId() {
		return t.inv.Considered(f.GetId()) // its owner would have to be seen
	}
	if c.path != f.GetPath() && t.byPath[c.path] == c {
		delete(t.byPath, c.path)
	}
	c.path = f.GetPath()
	t.byPath[c.path] = c
	t.placed(c, f.GetId())
	if err := t.tell(c, true); err != nil {
		return err
	}
	t.need(c, feel)
	return nil
}

// settle answers for the cgroups of which it is now known whose they are, or that they
// are nobody's.
func (t *tracker) settle(now time.Time) error {
	t.claims.news, t.claims.looked = false, now
	left := t.claims.waiting[:0]
	var err error
	for _, w := range t.claims.waiting {
		done := false
		if err == nil {
			done, err = t.answer(w, now)
		}
		if !done {
			left = append(left, w)
		}
	}
	clear(t.claims.waiting[len(left):])
	t.claims.waiting = left
	return err
}

// answer answers for a cgroup, if it is time.
func (t *tracker) answer(w waiting, now time.Time) (done bool, err error) {
	done, err = t.answerNow(w, now)
	if c := t.byCgroup[w.fact.GetId()]; done && err == nil && w.removed != 0 && c != nil {
		c.gone = true
		err = t.feel(c)
	}
	return done, err
}

// couldOwn tells whether a container that is at a cgroup's path now was there before the
// cgroup was removed.
func (w *waiting) couldOwn(c *container) bool {
	return w.removed == 0 || c.order <= w.order || c.created != 0 && c.created < w.removed
}

func (t *tracker) answerNow(w waiting, now time.Time) (done bool, err error) {
	if c := t.owner(w.fact); c != nil && w.couldOwn(c) {
		return true, t.claim(c, w.fact)
	}
	if c := t.nested(w); c != nil {
		return true, t.claim(c, w.fact)
	}
	if c := t.buried(w.fact, now); c != nil {
		if err := t.guessed(c, w.fact); err != nil {
			return true, err
		}
		return true, t.finish(c, now.UnixNano())
	}
	age := now.Sub(w.since)
	if t.awaited(w) && age < longest {
		if age < patience {
			return false, nil
		}
		c := t.namesake(w)
		if c == nil {
			return false, nil
		}
		return true, t.guessed(c, w.fact)
	}
	return true, t.inv.Considered(w.fact.GetId())
}

// bury remembers a container that is gone before anything was known of it.
func (t *tracker) bury(c *container) {
	if !c.root.trusted {
		return
	}
	if len(t.claims.graves) >= maxGraves {
		t.claims.graves = slices.Delete(t.claims.graves, 0, 1)
	}
	t.claims.graves = append(t.claims.graves, grave{c, time.Now()})
}

// buried digs up the container after which a cgroup is called that was made before its
// end was heard of.
func (t *tracker) buried(f *protov1.CgroupFact, now time.Time) *container {
	t.claims.graves = slices.DeleteFunc(t.claims.graves, func(g grave) bool { return now.Sub(g.at) > longest })
	if f.GetChange() != protov1.CgroupFact_CHANGE_CREATED {
		return nil
	}
	for n, g := range slices.Backward(t.claims.graves) {
		if made := f.GetTimeUnixNano(); discover.CalledAfter(f.GetPath(), g.container.id) && made <= g.at.UnixNano() && made > g.at.Add(-young).UnixNano() {
			t.claims.graves = slices.Delete(t.claims.graves, n, n+1)
			return g.container
		}
	}
	return nil
}

// due is when the next cgroup has waited for long enough for something; zero: none
// waits.
func (t *tracker) due() (next time.Time) {
	for _, w := range t.claims.waiting {
		at := w.since.Add(patience)
		if !at.After(t.claims.looked) {
			at = w.since.Add(longest)
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// awaited tells whether a container is still being created that a cgroup may be of. For
// a user's nobody else's cgroup waits.
func (t *tracker) awaited(w waiting) bool {
	for c := range t.creating {
		if c.root.trusted && c.order <= w.order {
			return true
		}
	}
	return false
}

// nested is the container whose cgroup a new one is, by a path that is seen from a
// cgroup namespace: there is nothing where it says, and it was made at the same time.
func (t *tracker) nested(w waiting) *container {
	for c := range t.unplaced {
		if w.fact.GetChange() == protov1.CgroupFact_CHANGE_CREATED && c.order <= w.order && c.root.trusted && c.path != "" && strings.HasSuffix(w.fact.GetPath(), c.path) && t.byPath[c.path] == c {
			return c
		}
	}
	return nil
}

// namesake is a container that is being created, after whose id a cgroup is called as
// runtimes do.
func (t *tracker) namesake(w waiting) *container {
	for c := range t.creating {
		if c.order <= w.order && c.root.trusted && discover.CalledAfter(w.fact.GetPath(), c.id) {
			return c
		}
	}
	return nil
}

// guessed claims a cgroup for a container of which nothing is known but its directory.
func (t *tracker) guessed(c *container, f *protov1.CgroupFact) error {
	if c.made == nil {
		c.made = t.describe.least(c.root, c.id)
	}
	c.guessed = true
	return t.claim(c, f)
}

// guess claims for a container whose directory is gone before its state was read the
// cgroup that is called after it, if one waits.
func (t *tracker) guess(c *container) error {
	for n, w := range t.claims.waiting {
		if c.order <= w.order && c.root.trusted && discover.CalledAfter(w.fact.GetPath(), c.id) {
			t.claims.waiting = slices.Delete(t.claims.waiting, n, n+1)
			return t.guessed(c, w.fact)
		}
	}
	t.bury(c)
	return nil
}
