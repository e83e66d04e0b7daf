package main

import (
	"github.com/containerd/containerd/api/types/task"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// beginList must be called before a list is asked for.
func (t *tracker) beginList(snapshot bool) {
	t.listing, t.snapshot, t.listTick = true, snapshot, t.tick
	clear(t.deleted)
	clear(t.listed)
}

// found is a container of a list.
type found struct {
	key       key
	container *protov1.Container
	task      *task.Process // nil: there is none
	tasks     bool          // whether it is known if there is one
}

// list takes one container of the list under way. For a snapshot all are told; else only
// what differs.
func (t *tracker) list(f *found) error {
	if _, gone := t.deleted[f.key]; gone || f.key.id == "" {
		return nil
	}
	c := t.containers[f.key]
	isNew := c == nil
	if isNew {
		if c = t.add(f.key); c == nil {
			return nil
		}
		c.tick = 0
	}
	t.listed[f.key] = struct{}{}
	was, statusWas := c.record, c.status
	if c.record == nil || c.tick <= t.listTick {
		t.record(f.key, c, f.container)
	}
	switch {
	case !f.tasks:
	case c.tick <= t.listTick:
		c.status.listed(f.task)
	case c.status.pid == 0 && c.status.alive():
		c.status.pid = f.task.GetPid() // an event that does not tell it was the first
	}
	if t.snapshot || string(was) != string(c.record) || statusWas != c.status {
		return t.tell(f.key, c)
	}
	return nil
}

// listed takes what a list tells of a task.
func (s *status) listed(p *task.Process) {
	switch {
	case p == nil:
		if s.pid != 0 { // its end was not told
			s.state, s.pid, s.exited = protov1.Container_STATE_EXITED, 0, false
		}
	case p.GetStatus() == task.Status_STOPPED:
		*s = status{state: protov1.Container_STATE_EXITED, exited: true, code: int32(p.GetExitStatus()),
			oom: s.oom, started: s.started, finished: nano(p.GetExitedAt()), dead: s.dead}
	default:
		next := stateOf(p.GetStatus())
		if next == protov1.Container_STATE_UNSPECIFIED {
			next = s.state // the shim did not answer
		}
		if s.pid != p.GetPid() {
			*s = status{dead: s.dead} // another task than the one that was known
		}
		s.state, s.pid, s.exited, s.finished = next, p.GetPid(), false, 0
	}
}

func stateOf(s task.Status) protov1.Container_State {
	switch s {
	case task.Status_CREATED:
		return protov1.Container_STATE_CREATED
	case task.Status_RUNNING, task.Status_PAUSING:
		return protov1.Container_STATE_RUNNING
	case task.Status_PAUSED:
		return protov1.Container_STATE_PAUSED
	case task.Status_STOPPED:
		return protov1.Container_STATE_EXITED
	}
	return protov1.Container_STATE_UNSPECIFIED
}

// endList ends the list under way: what it did not tell is gone. An error leaves all as
// it was.
func (t *tracker) endList(err error) error {
	t.listing = false
	defer func() { clear(t.deleted); clear(t.listed) }()
	if err != nil {
		return nil
	}
	for k, c := range t.containers {
		_, there := t.listed[k]
		switch {
		case there, c.tick > t.listTick: // else it was created after the list was made, and told then
		case t.snapshot, c.record == nil:
			t.drop(k) // not told again before Synced, or never
		default:
			if err := t.leave(k); err != nil {
				return err
			}
			if t.containers[k] == nil {
				continue
			}
			if err := t.forget(k); err != nil {
				return err
			}
		}
	}
	if !t.snapshot || !t.inSnapshot {
		return nil
	}
	t.inSnapshot = false
	if err := t.reconsider(); err != nil {
		return err
	}
	return t.inv.Synced()
}
