package main

import "time"

// endPatience is how long a container's deletion waits for the word of its end, and for
// its cgroup where it is not known yet which that is. A shim tells of an end by itself, and
// may do so later than containerd of the deletion, or not at all when it ends itself at the
// same time; the daemon then infers it. The store's answer was asked for when the container
// was created, and may come after the deletion of one that lived for moments.
const endPatience = time.Second

// leave is a deletion of a container of which not all was told.
type leave struct {
	deletion event
	until    time.Time
}

// lacks tells whether more is about to be told of a container.
func (t *tracker) lacks(k key, c *tracked) bool {
	if c == nil || c.record == nil {
		return false
	}
	if c.status.alive() {
		return true
	}
	_, asking := t.asking[k]
	_, unread := t.unread[k]
	if !asking && !unread {
		return false
	}
	if c.cgroup == 0 && c.status.ran() {
		return true // in a cgroup, which the host tells of a moment later
	}
	for _, claim := range t.unanswered {
		if claim.key == k {
			return true
		}
	}
	return false
}

// delete takes a container's delete event, which is told after all else of it.
func (t *tracker) delete(c *tracked, e *event) error {
	if t.listing {
		t.deleted[e.key] = struct{}{}
	}
	if t.lacks(e.key, c) {
		t.leaving[e.key] = leave{deletion: *e, until: t.now().Add(endPatience)}
		return nil
	}
	return t.gone(e.key, c, e)
}

// leaveIfWhole ends a container's wait if it waits, and nothing is to come.
func (t *tracker) leaveIfWhole(k key) error {
	if _, waits := t.leaving[k]; !waits || t.lacks(k, t.containers[k]) {
		return nil
	}
	return t.leave(k)
}

// leave ends a container's wait, if it waits.
func (t *tracker) leave(k key) error {
	l, ok := t.leaving[k]
	if !ok {
		return nil
	}
	delete(t.leaving, k)
	c := t.containers[k]
	if c == nil {
		return nil
	}
	return t.gone(k, c, &l.deletion)
}

// leaveLate lets those go that waited long enough.
func (t *tracker) leaveLate() error {
	now := t.now()
	for k, l := range t.leaving {
		if now.Before(l.until) {
			continue
		}
		if err := t.leave(k); err != nil {
			return err
		}
	}
	return nil
}

// gone tells that a container is no more.
func (t *tracker) gone(k key, c *tracked, e *event) error {
	as := callOf(created(e))
	if c != nil && c.record != nil {
		as = c.called
	}
	t.buried.add(grave{key: k, tick: t.tick, nano: e.nano})
	if err := t.lifecycle(e, "removed", as); err != nil {
		return err
	}
	if c != nil {
		// Another container may be given the id, and with it a cgroup of the same path,
		// before the host tells that this one's is gone.
		delete(t.cgroups, c.path)
	}
	if err := t.forget(k); err != nil {
		return err
	}
	return t.settle(k)
}
