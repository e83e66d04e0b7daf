package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// find opens roots that are there and not open. It tells whether there was one.
func (t *tracker) find() (found bool) {
	for _, r := range t.roots {
		if r.dir == nil && t.openRoot(r) {
			found = true
		}
	}
	return found
}

func (t *tracker) openRoot(r *root) bool {
	if err := r.open(); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			t.why = err.Error()
		}
		return false
	}
	if t.open[r.at] != nil { // by another name
		_ = r.dir.Close()
		r.dir = nil
		return false
	}
	t.open[r.at] = r
	r.wd = t.watch(r.path, watchRoot, target{root: r})
	// What comes while it is listed is told by the watch.
	t.list(r)
	return true
}

// list brings what is known of a root to what is in it.
func (t *tracker) list(r *root) {
	names, err := r.names(maxContainers)
	if err != nil {
		t.why = err.Error()
	}
	for _, name := range names {
		if r.parent {
			t.namespace(r, name)
		} else {
			t.found(r, name)
		}
	}
}

func (t *tracker) namespace(r *root, name string) {
	in := r.inner[name]
	if in == nil {
		if len(r.inner) >= maxContainers {
			return
		}
		in = r.namespace(name)
		r.inner[name] = in
	}
	if in.dir == nil && !t.openRoot(in) {
		delete(r.inner, name)
	}
}

// absent says that there is no root.
func (t *tracker) absent() string {
	var all []string
	for _, r := range t.roots {
		all = append(all, r.path)
	}
	why := "there is no state directory of an OCI runtime at " + strings.Join(all, ", ")
	if t.why != "" {
		why += " (" + t.why + ")"
	}
	return why + "; if the runtime's is another (option --root), set roots to it"
}

func (t *tracker) names() (names []string) {
	for _, r := range t.open {
		names = append(names, r.path)
	}
	slices.Sort(names)
	return names
}

// shut takes out all of a root that is gone.
func (t *tracker) shut(r *root) error {
	if r.dir == nil {
		return nil
	}
	for _, in := range r.inner {
		if err := t.shut(in); err != nil {
			return err
		}
	}
	clear(r.inner)
	delete(t.open, r.at)
	t.unwatch(&r.wd)
	err := r.dir.Close()
	r.dir = nil
	if err != nil {
		return fmt.Errorf("close %s: %w", r.path, err)
	}
	last := len(t.open) == 0
	for _, c := range t.sorted() {
		if c.root != r {
			continue
		}
		if last {
			t.forget(c) // what was told stays, until there is a root again
		} else if err := t.end(c); err != nil {
			return err
		}
	}
	return nil
}

// vanished takes out a root that is not where it was.
func (t *tracker) vanished(r *root) error {
	if r.dir == nil {
		return nil
	}
	for _, up := range t.roots {
		for name, in := range up.inner {
			if in == r {
				delete(up.inner, name)
			}
		}
	}
	t.log.Warn("a state directory is gone", "root", r.path)
	if err := t.shut(r); err != nil {
		return err
	}
	if len(t.open) == 0 {
		return t.snapshot()
	}
	return nil
}

// appear opens roots that have come since.
func (t *tracker) appear() error {
	was := t.live
	if !t.find() || was {
		return nil
	}
	return t.snapshot()
}

// compare brings what is known to what is there.
func (t *tracker) compare() error {
	t.watchAgain()
	for _, r := range t.allRoots() {
		if r.dir == nil {
			continue
		}
		if r.replaced() {
			if err := t.vanished(r); err != nil {
				return err
			}
			continue
		}
		t.list(r)
	}
	for _, c := range t.sorted() {
		if c.root.dir == nil {
			continue
		}
		if _, err := c.root.dir.Lstat(c.id); errors.Is(err, fs.ErrNotExist) {
			if err := t.end(c); err != nil {
				return err
			}
			continue
		}
		if stamp(c.root.dir, c.id) != c.stamp {
			t.need(c, read)
		} else {
			t.need(c, feel)
		}
	}
	return t.appear()
}

// watchAgain tries to watch what could not be watched: who ran out of watches may have
// been given more.
func (t *tracker) watchAgain() {
	if t.watcher == nil {
		return
	}
	t.blind = false
	for _, r := range t.allRoots() {
		if r.dir != nil && r.wd < 0 {
			r.wd = t.watch(r.path, watchRoot, target{root: r})
		}
	}
	for _, c := range t.containers {
		if c.wd < 0 {
			c.wd = t.watch(filepath.Join(c.root.path, c.id), watchContainer, target{root: c.root, container: c})
		}
	}
}

func (t *tracker) allRoots() (all []*root) {
	for _, r := range t.roots {
		all = append(all, r)
		for _, in := range r.inner {
			all = append(all, in)
		}
	}
	return all
}
