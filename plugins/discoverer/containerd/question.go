package main

import protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"

// ask queues a question to the store.
func (t *tracker) ask(k key, c *tracked) {
	c.tries = 0
	t.askAgain(k, c)
}

func (t *tracker) askAgain(k key, c *tracked) {
	t.asking[k] = struct{}{}
	if !c.queued {
		c.queued = true
		t.questions.push(k)
	}
}

// question is one container to ask the store for.
type question struct {
	key   key
	of    *tracked // nil: it is a claim's, and whether there is such a container is asked
	claim uint64   // the cgroup
	tick  uint64
}

// next gives the next question, if there is one.
func (t *tracker) next() (question, bool) {
	for n := t.questions.len(); n > 0; n-- {
		k := t.questions.pop()
		c := t.containers[k]
		if c == nil || !c.queued {
			continue // deleted
		}
		if c.inFlight {
			t.questions.push(k) // asked again when this answer is there
			continue
		}
		c.queued, c.inFlight = false, true
		t.asked++
		return question{key: k, of: c, tick: t.tick}, true
	}
	return question{}, false
}

// outcome of a question.
type outcome int

const (
	answerOK outcome = iota
	answerGone
	answerFailed
)

// answer takes the answer to a question of next.
func (t *tracker) answer(q question, r *protov1.Container, how outcome) error {
	c := t.containers[q.key]
	if c != q.of || c == nil {
		return t.settle(q.key) // deleted meanwhile, and there may be another of its id
	}
	c.inFlight = false
	switch how {
	case answerGone:
		if c.record == nil {
			t.drop(q.key)
			break
		}
		// What the create event told stays until the delete event.
		if c.path == "" {
			t.unread[q.key] = t.now().UnixNano()
		}
	case answerFailed:
		t.failed++
		if c.tries++; c.tries < maxTries {
			t.askAgain(q.key, c)
		}
	case answerOK:
		if c.tick > q.tick {
			t.stale++ // of the tasks, which it does not tell of; an update asks again
		}
		was := c.record
		cgroup := c.cgroup
		t.record(q.key, c, r)
		if string(was) != string(c.record) || cgroup != c.cgroup {
			if err := t.tell(q.key, c); err != nil {
				return err
			}
		}
	}
	if c := t.containers[q.key]; c == nil || !c.queued {
		delete(t.asking, q.key)
	}
	if err := t.settle(q.key); err != nil {
		return err
	}
	return t.leaveIfWhole(q.key)
}
