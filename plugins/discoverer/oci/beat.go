package main

import (
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// beat is how often that is looked at of which the kernel does not tell: roots that are
// not there, the freezer of v1, processes.
const beat = time.Second

// beat looks at what nobody tells of.
func (t *tracker) beat() error {
	if err := t.appear(); err != nil {
		return err
	}
	if t.blind {
		if err := t.catchUp(); err != nil {
			return err
		}
	}
	for c := range t.creating {
		if time.Since(c.since) > young {
			delete(t.creating, c)
			t.admit(c)
			if err := t.tell(c, false); err != nil {
				return err
			}
		}
	}
	for c := range t.unplaced {
		if time.Since(c.since) > young {
			delete(t.unplaced, c)
		}
	}
	for _, c := range t.containers {
		if alive(c.phase) && t.differs(c) {
			t.need(c, feel)
		}
	}
	if err := t.work(); err != nil {
		return err
	}
	return t.settle(time.Now())
}

// differs tells whether a container is not any more what it was told to be, as far as
// nobody tells of it.
func (t *tracker) differs(c *container) bool {
	if t.proc != "" && c.running {
		if !t.proc.alive(c.pid, c.start) {
			return true
		}
		if n := len(c.made.Args); c.phase == protov1.Container_STATE_RUNNING && n == 0 {
			t.describe.args(c.made, c.pid)
			return len(c.made.Args) > n
		}
	}
	return c.freezer != "" && t.cgroups.frozen(c.freezer) != (c.phase == protov1.Container_STATE_PAUSED) && c.phase != protov1.Container_STATE_CREATED
}

// resync compares everything, and says what could not be read.
func (t *tracker) resync() error {
	if t.describe.noBundle > 0 {
		t.log.Warn("bundles can't be read, so their containers lack args, env, user and ulimits; name the directories that they are in as bundles",
			"times", t.describe.noBundle, "example", t.describe.example)
		t.describe.noBundle, t.describe.example = 0, ""
	}
	if t.unread > 0 {
		t.log.Warn("states could not be read as they should be", "times", t.unread)
		t.unread = 0
	}
	if t.refused > 0 {
		t.log.Warn("there are too many containers; those beyond are left out", "most", maxContainers, "most_of_users", maxOthers, "times", t.refused)
		t.refused = 0
	}
	if t.claims.hurried > 0 {
		t.log.Warn("cgroups came faster than runtimes wrote their state; they were taken for nobody's", "times", t.claims.hurried)
		t.claims.hurried = 0
	}
	if n := t.describe.filter.LabelsShortened(); n > 0 {
		t.log.Info("labels were cut or left out for their size; see label_size and labels_size", "descriptions", n)
	}
	if err := t.compare(); err != nil {
		return err
	}
	return t.catchUp()
}
