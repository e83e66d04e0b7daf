package main

import (
	"errors"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	// maxContainers bounds what is kept, of all roots together. Those whose state others
	// than root can write, all together, take up maxOthers of them: a user who makes
	// directories without end keeps nobody's container out but users'.
	maxContainers = 4096
	maxOthers     = maxContainers / 4
	// young is how long a directory without a state is taken for a container that is
	// being created.
	young = 10 * time.Second
)

// tracker knows the containers of all roots and tells of them. One goroutine uses it.
type tracker struct {
	inv      discover.Inventory
	describe *describer
	cgroups  hierarchy
	proc     proc
	all      bool // tell the lifecycle of managed containers too
	log      *slog.Logger
	seed     maphash.Seed

	watcher *watcher
	blind   bool // something could not be watched: look again and again
	warned  bool // of that
	roots   []*root
	open    map[inode]*root

	containers map[key]*container
	others     int                     // of them, in roots that others can write to
	creating   map[*container]struct{} // young, and without a state
	unplaced   map[*container]struct{} // young, and their cgroup not found
	byPath     map[string]*container
	byCgroup   map[uint64]*container
	order      uint64
	claims     claims

	live  bool // a snapshot was told
	dirty []*container
	stale map[*container]work // of those in dirty

	refused int // containers beyond maxContainers, since last said
	unread  int // states that could not be read, likewise
	why     string
}

// key names a container here.
type key struct {
	root *root
	id   string
}

// work is what to do about a container of which something changed.
type work int

const (
	feel work = iota + 1 // its cgroup, its fifo, its process
	read                 // its state too
)

func newTracker(inv discover.Inventory, c Config, node *protov1.Node, log *slog.Logger) *tracker {
	p := newProc(c.Proc)
	t := &tracker{
		inv: inv, describe: &describer{filter: describe.NewFilter(c.FilterConfig), proc: p}, proc: p,
		cgroups: newHierarchy(node.GetCgroupRoot(), node.GetHostRoot()), all: c.Lifecycle == lifecycleAll, log: log, seed: maphash.MakeSeed(),
		open: map[inode]*root{}, containers: map[key]*container{}, creating: map[*container]struct{}{}, unplaced: map[*container]struct{}{},
		byPath: map[string]*container{}, byCgroup: map[uint64]*container{}, stale: map[*container]work{},
	}
	for _, p := range c.places(node.GetHostRoot()) {
		t.roots = append(t.roots, newRoot(p))
	}
	return t
}

// begin opens what roots there are and tells of their containers.
func (t *tracker) begin() error {
	var err error
	if t.watcher, err = newWatcher(); err != nil {
		t.blind = true
		t.log.Warn("state directories are looked at every second instead of being watched", "error", err)
	}
	t.find()
	return t.snapshot()
}

func (t *tracker) close() error {
	var err error
	for _, r := range t.open {
		err = errors.Join(err, r.dir.Close())
	}
	if t.watcher != nil {
		err = errors.Join(err, t.watcher.close())
	}
	return err
}

// sorted are the containers in the order in which they were heard of.
func (t *tracker) sorted() []*container {
	all := make([]*container, 0, len(t.containers))
	for _, c := range t.containers {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *container) int { return int(a.order) - int(b.order) })
	return all
}

// found takes note of a directory in a root.
func (t *tracker) found(r *root, id string) *container {
	k := key{r, id}
	if c := t.containers[k]; c != nil {
		return c
	}
	if !r.holds(id) {
		return nil
	}
	if len(t.containers) >= maxContainers || !r.trusted && t.others >= maxOthers {
		t.refused++
		return nil
	}
	if !r.trusted {
		t.others++
	}
	t.order++
	c := &container{root: r, id: id, order: t.order, since: time.Now(), wd: -1, cgroupWd: -1}
	t.containers[k] = c
	c.wd = t.watch(path.Join(r.path, id), watchContainer, target{root: r, container: c})
	t.creating[c] = struct{}{}
	t.need(c, read)
	if !t.live {
		// One that was there before, and has no state, is no container.
		if st, err := r.dir.Lstat(id); err == nil && time.Since(st.ModTime()) > young {
			delete(t.creating, c)
		}
		_ = t.work() // before the snapshot it tells nothing, and so it has no error
		t.admit(c)
	}
	return c
}

// need has a container looked at when all that happened is known.
func (t *tracker) need(c *container, w work) {
	if t.stale[c] == 0 {
		t.dirty = append(t.dirty, c)
	}
	t.stale[c] = max(t.stale[c], w)
}

// work looks at the containers of which something changed.
func (t *tracker) work() error {
	for len(t.dirty) > 0 {
		c := t.dirty[0]
		if t.dirty = t.dirty[1:]; len(t.dirty) == 0 {
			t.dirty = nil // and with it what it has worked off
		}
		w := t.stale[c]
		delete(t.stale, c)
		if t.containers[key{c.root, c.id}] != c || w == 0 {
			continue
		}
		if w == read && !t.read(c) {
			continue
		}
		if err := t.feel(c); err != nil {
			return err
		}
	}
	return nil
}

// read reads a container's state. It tells whether there is one.
func (t *tracker) read(c *container) bool {
	s, err := readState(c.root.dir, c.id)
	if errors.Is(err, errNoState) || errors.Is(err, fs.ErrNotExist) {
		return false
	}
	var made *protov1.Container
	if s != nil {
		var wrong error
		made, wrong = t.describe.made(c.root, c.id, s)
		err = errors.Join(err, wrong)
	}
	t.misread(c, err)
	if s == nil {
		return false
	}
	c.stamp, t.claims.news = stamp(c.root.dir, c.id), true
	if c.guessed && c.path != s.cgroup || c.pid != s.pid && c.pid != 0 {
		// It was a guess, or the container was restored, and its cgroup made anew.
		if t.byCgroup[c.cgroup] == c {
			delete(t.byCgroup, c.cgroup)
		}
		c.cgroup, c.gone = 0, false
	}
	c.guessed = false
	c.made, c.pid, c.start, c.created, c.running, c.fifo, c.status, c.freezer = made, s.pid, s.start, s.created, s.running, s.fifo, s.status, s.freezer
	if !c.seen {
		c.seen = true
		delete(t.creating, c)
		if t.live {
			t.unplaced[c] = struct{}{}
		}
	}
	at := s.cgroup
	if t.proc != "" && s.running {
		if p := t.proc.cgroup(s.pid); p != "" && t.proc.alive(s.pid, s.start) {
			at = p
		}
	}
	if !c.placed() || at != "" && t.is(at) {
		c.path = at
	}
	return true
}

// placed tells whether the kernel has shown where the container's cgroup is.
func (c *container) placed() bool { return c.cgroup != 0 }

// is tells whether there is a cgroup at a path.
func (t *tracker) is(p string) bool {
	if !t.cgroups.visible(p) {
		return false
	}
	_, ok := t.cgroups.feel(p)
	return ok
}

// admit tells of a container whose state is there and can't be read by its name.
func (t *tracker) admit(c *container) {
	if c.problem != "" && c.made == nil {
		c.made = t.describe.least(c.root, c.id)
	}
}

// misread notes that something of a container could not be read, each thing once.
func (t *tracker) misread(c *container, err error) {
	if err == nil {
		c.problem = ""
		return
	}
	t.unread++
	if why := describe.Cut(err.Error(), 200); why != c.problem {
		c.problem = why
		t.log.Warn("the state of a container can't be read as it should be", "root", c.root.path, "container", c.id, "error", why)
	}
}

// feel looks at what becomes of a container whose state is known, and tells it.
func (t *tracker) feel(c *container) error {
	if !c.seen {
		return nil
	}
	now := time.Now().UnixNano()
	if c.fifo {
		_, err := c.root.dir.Lstat(path.Join(c.id, startFifo))
		c.fifo = err == nil
	}
	p, ok := pulse{}, false
	if t.cgroups.visible(c.path) {
		p, ok = t.cgroups.feel(c.path)
	}
	if ok && !c.root.trusted && p.owner != c.root.owner || !c.root.trusted && t.cgroups.root == "" {
		if t.byPath[c.path] == c {
			delete(t.byPath, c.path)
		}
		c.path, p, ok = "", pulse{}, false // somebody's word of a cgroup that is not theirs
	}
	if ok && c.placed() && p.id != c.cgroup {
		p, ok, c.gone = pulse{}, false, true // another's, where its own was
	}
	if ok {
		t.placed(c, p.id)
		if c.cgroupWd < 0 {
			c.cgroupWd = t.watch(t.cgroups.events(c.path), unix.IN_MODIFY, target{container: c, cgroup: true})
			p, ok = t.cgroups.feel(c.path) // what changed before it was watched
		}
	}
	to := t.state(c, p, ok)
	t.place(c, alive(to))
	return t.turn(c, to, now)
}

// placed notes which cgroup is a container's.
func (t *tracker) placed(c *container, id uint64) {
	delete(t.unplaced, c)
	if c.cgroup == id {
		return
	}
	if t.byCgroup[c.cgroup] == c {
		delete(t.byCgroup, c.cgroup)
	}
	c.cgroup, c.gone = id, false
	t.byCgroup[id] = c
	t.unwatch(&c.cgroupWd)
}

// state is what a container's is, by what is seen of its cgroup, if anything is.
func (t *tracker) state(c *container, p pulse, felt bool) protov1.Container_State {
	lives := true
	switch {
	case c.status == "stopped":
		lives = false
	case !c.running:
		return protov1.Container_STATE_CREATED
	case t.proc != "":
		lives = t.proc.alive(c.pid, c.start)
	case felt:
		lives = p.populated
	case c.gone || t.cgroups.visible(c.path) && !t.young(c):
		lives = false
	}
	switch {
	case !lives:
		return protov1.Container_STATE_EXITED
	case c.fifo || c.status == "creating" || c.status == "created":
		return protov1.Container_STATE_CREATED
	case felt && p.frozen || c.status == "paused" || c.freezer != "" && t.cgroups.frozen(c.freezer):
		return protov1.Container_STATE_PAUSED
	}
	return protov1.Container_STATE_RUNNING
}

// young tells of a container whose cgroup is yet to be found, so that nothing follows
// from its not being seen.
func (t *tracker) young(c *container) bool {
	_, young := t.unplaced[c]
	return young
}

// place has a cgroup's path lead to a container: of two of the same, to the one that
// lives, or came later. Who owns a cgroup that is not there yet a user does not say.
func (t *tracker) place(c *container, lives bool) {
	other := t.byPath[c.path]
	switch {
	case c.path == "", other == c, !c.root.trusted && !c.placed():
	case other == nil:
		t.byPath[c.path] = c
	case lives && (!alive(other.phase) || c.order > other.order):
		t.byPath[c.path] = c
		t.need(other, feel) // to be told without it
	}
}

// end takes a container out whose directory is gone.
func (t *tracker) end(c *container) error {
	if !c.seen && t.live {
		if err := t.guess(c); err != nil {
			return err
		}
	}
	return t.finish(c, time.Now().UnixNano())
}

// finish tells the end of a container, if it was told of, and forgets it.
func (t *tracker) finish(c *container, now int64) error {
	if c.guessed {
		if err := t.turn(c, protov1.Container_STATE_CREATED, now); err != nil {
			return err
		}
	}
	if alive(c.phase) {
		if err := t.turn(c, protov1.Container_STATE_EXITED, now); err != nil {
			return err
		}
	}
	t.forget(c)
	if !c.said || !t.live {
		return nil
	}
	if err := t.lifecycle(c, "removed", now); err != nil {
		return err
	}
	return t.inv.RemoveContainer(c.root.ref(c.id))
}

// forget ends the memory of a container.
func (t *tracker) forget(c *container) {
	t.claims.news = true
	t.unwatch(&c.wd)
	t.unwatch(&c.cgroupWd)
	if k := (key{c.root, c.id}); t.containers[k] == c {
		delete(t.containers, k)
		if !c.root.trusted {
			t.others--
		}
	}
	delete(t.creating, c)
	delete(t.unplaced, c)
	delete(t.stale, c)
	if t.byPath[c.path] == c {
		delete(t.byPath, c.path)
	}
	if t.byCgroup[c.cgroup] == c {
		delete(t.byCgroup, c.cgroup)
	}
}
