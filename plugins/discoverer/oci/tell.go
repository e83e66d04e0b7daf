package main

import (
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// snapshot tells all that there is, or that there is nothing to look at.
func (t *tracker) snapshot() error {
	if len(t.open) == 0 {
		t.live = false
		t.inv.Degraded(t.absent())
		return nil
	}
	if err := t.inv.Reset(); err != nil {
		return err
	}
	t.live = true
	for _, c := range t.sorted() {
		if err := t.tell(c, true); err != nil {
			return err
		}
	}
	t.log.Info("state directories are read", "roots", t.names(), "containers", len(t.containers))
	return t.inv.Synced()
}

// turn tells what becomes of a container, step by step where steps were not seen.
func (t *tracker) turn(c *container, to protov1.Container_State, now int64) error {
	from := c.phase
	c.phase = to
	if !t.live {
		return nil // nothing happened now
	}
	type step struct {
		word string
		at   int64
	}
	var steps []step
	if from == protov1.Container_STATE_UNSPECIFIED {
		if c.created != 0 && c.since.UnixNano()-c.created > int64(young) {
			return t.tell(c, false) // it is heard of late, by a root that has come
		}
		at := c.created
		if at == 0 || at > now {
			at = now
		}
		steps = append(steps, step{"created", at})
		from = protov1.Container_STATE_CREATED
	}
	if from == protov1.Container_STATE_CREATED && to != from && (to != protov1.Container_STATE_EXITED || c.unfifoed != 0 || !c.fifo && c.running) {
		c.started = now
		if c.unfifoed != 0 {
			c.started = c.unfifoed
		}
		steps = append(steps, step{"started", c.started})
		from = protov1.Container_STATE_RUNNING
	}
	switch {
	case to == from:
	case to == protov1.Container_STATE_PAUSED:
		steps = append(steps, step{"paused", now})
	case to == protov1.Container_STATE_RUNNING && from == protov1.Container_STATE_PAUSED:
		steps = append(steps, step{"unpaused", now})
	case to == protov1.Container_STATE_EXITED && from != protov1.Container_STATE_CREATED:
		c.finished = now
		steps = append(steps, step{"died", now})
	}
	// What the daemon has not heard of has no lifecycle yet.
	if err := t.tell(c, false); err != nil {
		return err
	}
	for _, s := range steps {
		if err := t.lifecycle(c, s.word, s.at); err != nil {
			return err
		}
	}
	return nil
}

// tell describes a container, if there is news or it is asked for.
func (t *tracker) tell(c *container, asked bool) error {
	if !t.live || c.made == nil {
		return nil
	}
	d := c.description(t.byPath[c.path] == c)
	sum := hash(t.seed, d)
	if !asked && c.said && sum == c.sum {
		return nil
	}
	c.said, c.sum = true, sum
	return t.inv.Container(d)
}

func (t *tracker) lifecycle(c *container, word string, at int64) error {
	if c.made == nil || c.made.Runtime != bareRuntime && !t.all {
		return nil // the discoverer of who manages it tells
	}
	return t.inv.Lifecycle(&protov1.Lifecycle{
		Container: c.root.ref(c.id), Action: word, TimeUnixNano: at,
		Attributes: map[string]string{"name": c.made.Name, "image": reference(c.made.Image)},
	})
}

// reference is an image as its user wrote it.
func reference(i *protov1.Image) string {
	out := i.GetName()
	if i.GetTag() != "" {
		out += ":" + i.GetTag()
	}
	if i.GetDigest() != "" {
		out += "@" + i.GetDigest()
	}
	return out
}
