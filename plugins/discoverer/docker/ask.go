package main

import (
	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// maxTries is how often an inspect that went wrong is tried before the container stays as
// it is known, until its next event or a resync.
const maxTries = 3

// queue tells where a container waits to be inspected.
type queue int

const (
	notQueued queue = iota
	inBackground
	inUrgent
)

// await queues a container behind those with news; a snapshot is not complete
// without it.
func (t *tracker) await(id string, c *tracked, snapshot bool) {
	c.tries = 0
	if snapshot && !c.awaited {
		c.awaited = true
		t.snapshot++
	}
	t.askLater(id, c)
}

func (t *tracker) askLater(id string, c *tracked) {
	if c.queued == notQueued {
		c.queued = inBackground
		t.background.push(id)
	}
}

// ask queues a container with news.
func (t *tracker) ask(id string, c *tracked) {
	c.tries = 0
	if c.queued != inUrgent {
		c.queued = inUrgent
		t.urgent.push(id)
	}
}

// request is one inspect to do.
type request struct {
	id   string
	tick uint64
}

// next gives the next inspect to do, if there is one.
func (t *tracker) next() (request, bool) {
	for _, q := range []*fifo{&t.urgent, &t.background} {
		for n := q.len(); n > 0; n-- {
			id := q.pop()
			c := t.containers[id]
			if c == nil || c.queued == notQueued {
				continue // destroyed, or moved to the other queue and done
			}
			if c.inFlight {
				q.push(id) // asked for again when this answer is there
				continue
			}
			c.queued, c.inFlight = notQueued, true
			t.inspects++
			return request{id: id, tick: t.tick}, true
		}
	}
	return request{}, false
}

// outcome of an inspect.
type outcome int

const (
	inspectOK outcome = iota
	inspectGone
	inspectFailed
)

// inspected takes the answer to a request of next.
func (t *tracker) inspected(r request, next *protov1.Container, how outcome) error {
	c := t.containers[r.id]
	if c == nil {
		return nil // destroyed meanwhile
	}
	c.inFlight = false
	switch how {
	case inspectGone:
		// What the create event told stays until the destroy event.
		t.arrived(c)
	case inspectFailed:
		t.failed++
		if c.tries++; c.tries >= maxTries {
			t.arrived(c)
		} else {
			t.askLater(r.id, c)
		}
	case inspectOK:
		t.arrived(c)
		if c.tick > r.tick {
			t.stale++
			keepNews(next, c.said.Container())
		}
		if c.oom {
			// The engine forgets it when another process than the first was killed.
			next.OomKilled = proto.Bool(true)
		}
		if !c.said.Is(next) {
			if err := t.tell(c, next); err != nil {
				return err
			}
		}
	}
	return t.settle()
}

// keepNews puts what events told over a description that may be older.
func keepNews(next, said *protov1.Container) {
	next.Name, next.State, next.OomKilled = said.Name, said.State, said.OomKilled
	next.StartedUnixNano, next.FinishedUnixNano = said.StartedUnixNano, said.FinishedUnixNano
	next.ExitCode = said.ExitCode
	if said.State != protov1.Container_STATE_RUNNING && said.State != protov1.Container_STATE_PAUSED {
		next.Pid = 0
	}
}

// arrived takes a container off what the snapshot waits for.
func (t *tracker) arrived(c *tracked) {
	if c.awaited {
		c.awaited = false
		t.snapshot--
	}
}
