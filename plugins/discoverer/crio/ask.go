package main

import (
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// want says what a request asks for.
type want int

const (
	wantAny       want = iota // a container or a sandbox, whichever has the id
	wantContainer             // its status
	wantSandbox               // its status, with that of its own container
)

// request is one thing to ask the runtime.
type request struct {
	id    string
	want  want
	clock uint64
	known bool   // something was told of it
	probe *probe // nil: asked for a container that is known to be there
}

// answer to a request.
type answer struct {
	request   request
	outcome   outcome
	container *protov1.Container // nil: a sandbox whose container is not told of
	sandbox   *sandbox           // nil: not a sandbox
	glimpse   bool               // of what the runtime does not list yet
}

// outcome of a request.
type outcome int

const (
	answered outcome = iota
	notThere
	failed
)

// await queues a container that a list told of: one of a snapshot behind those with
// news, and the snapshot is not complete without it.
func (t *tracker) await(id string, c *tracked, snapshot bool) {
	if !snapshot {
		t.ask(id, c)
		return
	}
	c.tries = 0
	if !c.awaited {
		c.awaited = true
		t.awaited++
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

// next gives the next thing to ask, if there is one.
func (t *tracker) next() (request, bool) {
	now := t.now()
	for n := t.probes.due(now); n > 0; n-- {
		p := t.probes.pop()
		if !t.worthAsking(p) {
			continue
		}
		if _, busy := t.inFlight[p.id]; busy {
			t.queueProbe(p, now.Add(firstProbe))
			continue
		}
		return t.request(p.id, p), true
	}
	for _, q := range []*fifo{&t.urgent, &t.background} {
		for n := q.len(); n > 0; n-- {
			id := q.pop()
			c := t.containers[id]
			if c == nil || c.queued == notQueued {
				continue // removed, or moved to the other queue and done
			}
			if _, busy := t.inFlight[id]; busy {
				q.push(id) // asked for again when this answer is there
				continue
			}
			c.queued = notQueued
			return t.request(id, nil), true
		}
	}
	return request{}, false
}

func (t *tracker) request(id string, p *probe) request {
	t.inFlight[id] = struct{}{}
	t.asked++
	c := t.containers[id]
	r := request{id: id, clock: t.clock, probe: p, known: c != nil}
	if c != nil {
		c.asked = t.clock
		r.want = wantContainer
	}
	if t.sandboxes[id] != nil {
		r.want = wantSandbox
	}
	return r
}

// answer takes the answer to a request of next.
func (t *tracker) answer(a answer) error {
	id := a.request.id
	delete(t.inFlight, id)
	if t.gone.has(id) {
		return t.settle()
	}
	t.clock++
	c := t.containers[id]
	if c != nil && a.outcome != failed {
		t.arrived(c)
	}
	var err error
	switch a.outcome {
	case notThere:
		err = t.absent(a.request, c)
	case failed:
		t.failed++
		if c != nil {
			err = t.tellKept(c)
			if c.tries++; c.tries >= maxTries {
				t.arrived(c)
			} else {
				t.askLater(id, c)
			}
		}
	case answered:
		err = t.answered(a, c)
	}
	if err != nil {
		return err
	}
	t.probeAgain(a)
	if err := t.tellPods(); err != nil {
		return err
	}
	return t.settle()
}

// answered takes what the runtime says of a container or a sandbox.
func (t *tracker) answered(a answer, c *tracked) error {
	if a.sandbox != nil {
		t.learnSandbox(a.sandbox)
		if err := t.tellPods(); err != nil {
			return err
		}
	}
	next := a.container
	if next == nil {
		return nil
	}
	t.join(next, next.SandboxId)
	if c != nil && c.heard > a.request.clock {
		// Its life is put in order by how far it is; of all else an event tells of the
		// limits alone.
		t.stale++
		if c.said.Container().GetLimits() != nil {
			next.Limits = nil
		}
	}
	if err := t.learn(next, t.now().UnixNano(), true); err != nil {
		return err
	}
	if c := t.containers[next.Id]; c != nil && !a.glimpse {
		c.listed = true
	}
	return nil
}

// absent takes the runtime's word that it has no such container.
func (t *tracker) absent(r request, c *tracked) error {
	if c == nil {
		return nil
	}
	t.denied++
	switch {
	case c.heard > r.clock: // heard of since
	case r.probe != nil && r.probe.removed:
		return t.forget(r.id, t.now().UnixNano())
	case c.listed:
		// Its events are still to come, or never will.
		t.probe(r.id, true)
	}
	return nil
}

// arrived takes a container off what the snapshot waits for.
func (t *tracker) arrived(c *tracked) {
	if c.awaited {
		c.awaited = false
		t.awaited--
	}
}

// cgroup takes the news that a cgroup came or went that is named like a container.
func (t *tracker) cgroup(n cgroupNews) {
	c := t.containers[n.id]
	switch {
	case n.removed && (c == nil || t.events && t.sandboxes[n.id] == nil && c.listed):
		// Nobody's that is known, or one whose removal an event will tell.
	case !n.removed && c != nil && c.listed:
	case !n.removed && t.events && !t.inspects:
		t.queueProbe(&probe{id: n.id, late: true}, t.now().Add(lateProbe))
	default:
		t.probe(n.id, n.removed)
	}
}

const (
	maxProbes = 1024
	// firstProbe is the pause before the second question about a new cgroup; each is
	// twice the one before.
	firstProbe   = 5 * time.Millisecond
	createdTries = 10 // 2.6 s in all
	// lateProbe is when a runtime is first asked about a new cgroup whose events come as
	// soon as it has an answer: only an event that was lost makes it necessary.
	lateProbe = 250 * time.Millisecond
	lateTries = 4 // 3.8 s in all
	// firstCheck is the pause before the runtime is asked whether a container whose
	// cgroup went is gone too; each further is four times the one before.
	firstCheck   = 30 * time.Millisecond
	removedTries = 4 // 2.5 s in all
)

// probe is a question that is asked until the runtime's answer is the expected one.
type probe struct {
	id      string
	removed bool // expected to be gone, else to be there
	late    bool // an event was expected first
	tries   int
	at      time.Time
}

// probe queues a question about an id that a cgroup or an event named.
func (t *tracker) probe(id string, removed bool) {
	p := &probe{id: id, removed: removed}
	at := t.now()
	if removed {
		at = at.Add(firstCheck)
	}
	t.queueProbe(p, at)
}

func (t *tracker) queueProbe(p *probe, at time.Time) {
	if !t.probes.push(p, at) {
		t.refused++
	}
}

// worthAsking tells whether what a probe expects is still to be learned.
func (t *tracker) worthAsking(p *probe) bool {
	c := t.containers[p.id]
	switch {
	case t.gone.has(p.id):
		return false
	case p.removed, c == nil:
		return true
	}
	return !c.listed && !t.events
}

// probeAgain queues the question of a probe once more, if it is to be asked again.
func (t *tracker) probeAgain(a answer) {
	p := a.request.probe
	if p == nil || !t.worthAsking(p) {
		return
	}
	pause, tries := firstProbe<<min(p.tries, 16), createdTries
	switch {
	case p.late:
		pause, tries = lateProbe<<min(p.tries+1, 8), lateTries
	case p.removed:
		pause, tries = firstCheck<<(2*min(p.tries+1, 8)), removedTries
	}
	if p.tries++; p.tries < tries {
		t.queueProbe(p, t.now().Add(pause))
	}
}

// probes are those that wait for their time, in its order.
type probes struct{ waiting []*probe }

// push tells whether there was room.
func (q *probes) push(p *probe, at time.Time) bool {
	if len(q.waiting) >= maxProbes {
		return false
	}
	p.at = at
	i := len(q.waiting)
	for i > 0 && q.waiting[i-1].at.After(at) {
		i--
	}
	q.waiting = append(q.waiting, nil)
	copy(q.waiting[i+1:], q.waiting[i:])
	q.waiting[i] = p
	return true
}

// due is how many are to be asked now.
func (q *probes) due(now time.Time) (n int) {
	for n < len(q.waiting) && !q.waiting[n].at.After(now) {
		n++
	}
	return n
}

func (q *probes) pop() *probe {
	p := q.waiting[0]
	q.waiting[0] = nil
	if q.waiting = q.waiting[1:]; len(q.waiting) == 0 {
		q.waiting = nil
	}
	return p
}

// wait is how long until the next is due; false: none waits.
func (q *probes) wait(now time.Time) (time.Duration, bool) {
	if len(q.waiting) == 0 {
		return 0, false
	}
	return max(0, q.waiting[0].at.Sub(now)), true
}
