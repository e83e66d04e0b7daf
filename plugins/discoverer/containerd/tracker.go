package main

import (
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	// maxTries is how often a question that went wrong is asked before the container
	// stays as it is known, until its next event or a resync.
	maxTries = 3
	// maxContainers that are followed; the daemon knows no more either.
	maxContainers = 65536
)

// tracker knows what was said of every container and decides what to say next. It does
// no I/O: events, lists, answers and the host's cgroups are handed to it, in any order,
// and it never lets an older answer overwrite a newer fact. It belongs to one goroutine.
//
// What orders things is a clock of its own that ticks with every event. A container
// remembers the tick of its last event; a list and a question remember the tick at which
// they were sent. An answer asked for before the container's last event may be older than
// it, so the event's facts win; an event after which there is more to know has asked
// again by itself. What the store tells (the record) and what the tasks tell (the status)
// are kept apart: only a list tells of both.
type tracker struct {
	inv    discover.Inventory
	filter *describe.Filter
	now    func() time.Time

	tick       uint64
	containers map[key]*tracked
	deleted    map[key]struct{} // since the list under way was asked for
	leaving    map[key]leave
	buried     graves
	listing    bool
	snapshot   bool // of the list under way
	listTick   uint64
	listed     map[key]struct{} // by the list under way

	questions  fifo
	asking     map[key]struct{} // asked for, or queued to be
	inSnapshot bool

	claims

	// counts since the tracker began, for the log
	asked, failed, stale, ignored, refused uint64
}

// tracked is one container.
type tracked struct {
	record   describe.Packed // what containerd's store tells; nil: not known yet, and nothing told
	path     string          // of its cgroup, as the record has it
	created  int64           // ns, by the record
	called   called          // by the record
	status   status
	cgroup   uint64 // id; 0: not known
	tick     uint64 // of the last event
	queued   bool
	inFlight bool
	tries    int
}

// status is what the tasks tell of a container.
type status struct {
	state    protov1.Container_State
	pid      uint32
	exited   bool // and code is its exit code
	code     int32
	oom      bool   // since the last start
	started  int64  // ns
	finished int64  // ns
	dead     uint32 // the pid of the last task whose end was told
}

// alive tells whether the container has processes.
func (s *status) alive() bool {
	return s.state == protov1.Container_STATE_RUNNING || s.state == protov1.Container_STATE_PAUSED
}

// ran tells whether the container has had a process.
func (s *status) ran() bool { return s.pid != 0 || s.started != 0 || s.exited }

func newTracker(inv discover.Inventory, s scope, filter *describe.Filter) *tracker {
	return &tracker{
		inv: inv, filter: filter, now: time.Now,
		containers: map[key]*tracked{}, deleted: map[key]struct{}{}, listed: map[key]struct{}{}, asking: map[key]struct{}{}, leaving: map[key]leave{},
		claims: newClaims(s),
	}
}

// event takes one of containerd's events.
func (t *tracker) event(e *event) error {
	switch e.action {
	case imageCreated:
		if isDocker(e.key.namespace) || isDigest(e.image) {
			return nil
		}
		return t.inv.Lifecycle(&protov1.Lifecycle{Action: "pulled", TimeUnixNano: e.nano,
			Attributes: map[string]string{"image": e.image}})
	case imageUpdated, imageDeleted, noAction:
		return nil
	case namespaceDeleted:
		return t.forgetNamespace(e.key.namespace)
	}
	if e.key.id == "" {
		t.ignored++
		return nil
	}
	t.tick++
	if e.action == containerCreated {
		if err := t.leave(e.key); err != nil { // another of the same id
			return err
		}
	}
	c := t.containers[e.key]
	if e.action == containerDeleted {
		return t.delete(c, e)
	}
	if c == nil {
		var err error
		if c, err = t.unknown(e); c == nil {
			return err
		}
	}
	c.tick = t.tick
	before := c.status
	word := apply(&c.status, e)
	switch e.action {
	case containerCreated:
		if c.record == nil { // else a list or an answer told of it first
			t.record(e.key, c, created(e))
		}
		if err := t.tell(e.key, c); err != nil {
			return err
		}
		t.ask(e.key, c)
	case containerUpdated:
		t.ask(e.key, c)
	default:
		if c.status != before && c.record != nil {
			if err := t.tell(e.key, c); err != nil {
				return err
			}
		}
	}
	if word == "" {
		return nil
	}
	if err := t.lifecycle(e, word, c.called); err != nil {
		return err
	}
	if word == "died" {
		return t.leaveIfWhole(e.key)
	}
	return nil
}

// unknown makes a container of an event that tells of one not known, where there is one:
// nil where there is not.
func (t *tracker) unknown(e *event) (*tracked, error) {
	switch e.action {
	case containerCreated:
	case taskExited, taskDeleted, taskOOM:
		t.ignored++
		return nil, nil
	default:
		// It was created while there were no events, or it was deleted and this came
		// late: the answer tells.
		if t.buried.find(e.key) != nil {
			t.ignored++
			return nil, nil
		}
	}
	c := t.add(e.key)
	if c != nil && e.action != containerCreated {
		t.ask(e.key, c)
	}
	return c, nil
}

// add makes room for a container; nil: there is none.
func (t *tracker) add(k key) *tracked {
	if len(t.containers) >= maxContainers {
		t.refused++
		return nil
	}
	c := &tracked{tick: t.tick}
	t.containers[k] = c
	return c
}

// created is a container as its create event tells it.
func created(e *event) *protov1.Container {
	return &protov1.Container{
		Id: e.key.id, Scope: scopeOf(e.key), Name: fallbackName(e.key, false), Image: parseImage(e.image), Runtime: runtimeName,
		CreatedUnixNano: e.nano,
	}
}

// apply changes a status as an event says, and returns the lifecycle's word for it.
func apply(s *status, e *event) string {
	switch e.action {
	case containerCreated:
		*s = status{state: protov1.Container_STATE_CREATED}
		return "created"
	case taskCreated:
		*s = status{state: protov1.Container_STATE_CREATED, pid: e.pid, dead: s.dead}
	case taskStarted:
		*s = status{state: protov1.Container_STATE_RUNNING, pid: e.pid, started: e.nano, dead: s.dead}
		return "started"
	case taskPaused:
		s.state = protov1.Container_STATE_PAUSED
		return "paused"
	case taskResumed:
		s.state = protov1.Container_STATE_RUNNING
		return "unpaused"
	case taskOOM:
		s.oom = true
		return "oom"
	case taskExited, taskDeleted:
		// Both tell of the end, in any order.
		ran := e.action == taskExited || s.alive()
		// The end of an earlier task may be told after a later one's start.
		if e.pid == 0 || s.pid == 0 || e.pid == s.pid {
			s.end(e)
		}
		if ran && (e.pid == 0 || e.pid != s.dead) {
			s.dead = e.pid
			return "died"
		}
	}
	return ""
}

func (s *status) end(e *event) {
	s.state, s.pid, s.exited, s.code, s.finished = protov1.Container_STATE_EXITED, 0, true, int32(e.code), e.ended
	if s.finished == 0 {
		s.finished = e.nano
	}
}

// record notes what the store has of a container, and finds its cgroup.
func (t *tracker) record(k key, c *tracked, r *protov1.Container) {
	if c.path != r.GetCgroupPath() {
		if t.byPath[c.path] == k {
			delete(t.byPath, c.path)
		}
		if c.path, c.cgroup = r.GetCgroupPath(), 0; c.path != "" {
			t.byPath[c.path] = k
		}
	}
	if id := t.cgroups[c.path]; id != 0 && c.path != "" {
		c.cgroup = id
	}
	c.record, c.called, c.created = describe.Pack(r), callOf(r), r.GetCreatedUnixNano()
	delete(t.unread, k)
}

// called is what lifecycle events call a container.
type called struct{ name, image string }

func callOf(r *protov1.Container) called {
	c := called{name: r.GetName()}
	if r.GetImage().GetName() != "" {
		c.image = reference(r.GetImage())
	}
	return c
}

// tell sends the description of a container.
func (t *tracker) tell(k key, c *tracked) error {
	out := c.record.Container()
	s := &c.status
	out.State, out.Pid, out.StartedUnixNano, out.FinishedUnixNano = s.state, s.pid, s.started, s.finished
	if s.exited {
		out.ExitCode = proto.Int32(s.code)
	}
	if s.oom {
		out.OomKilled = proto.Bool(true)
	}
	out.CgroupId = c.cgroup
	if c.cgroup != 0 {
		delete(t.unanswered, c.cgroup) // this is the answer
	}
	t.filter.Apply(out) // the status has fields too
	return t.inv.Container(out)
}

func (t *tracker) lifecycle(e *event, word string, as called) error {
	if isDocker(e.key.namespace) {
		return nil
	}
	l := &protov1.Lifecycle{Container: refOf(e.key), Action: word, TimeUnixNano: e.nano, Attributes: map[string]string{}}
	if as.name != "" {
		l.Attributes["name"] = as.name
	}
	if as.image != "" {
		l.Attributes["image"] = as.image
	}
	if word == "died" {
		l.Attributes["exit_code"] = strconv.FormatUint(uint64(e.code), 10)
		// A shell gives these codes too, to those that a signal ended.
		if e.code > 128 && e.code <= 128+64 {
			l.Attributes["signal"] = strconv.FormatUint(uint64(e.code-128), 10)
		}
	}
	return t.inv.Lifecycle(l)
}

func (t *tracker) forget(k key) error {
	t.drop(k)
	return t.inv.RemoveContainer(refOf(k))
}

// drop takes a container out without a word.
func (t *tracker) drop(k key) {
	c := t.containers[k]
	if c == nil {
		return
	}
	delete(t.containers, k)
	delete(t.leaving, k)
	delete(t.asking, k)
	delete(t.unread, k)
	if c.path != "" && t.byPath[c.path] == k {
		delete(t.byPath, c.path)
	}
}

func (t *tracker) forgetNamespace(namespace string) error {
	for k := range t.containers {
		if k.namespace == namespace {
			if err := t.forget(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// connected begins a snapshot: the stream of events is open, and every one that comes
// from now on is told within it.
func (t *tracker) connected() error {
	t.inSnapshot, t.connecting, t.away = true, false, false
	return t.inv.Reset()
}

// disconnected forgets what was under way; what is known stays.
func (t *tracker) disconnected() {
	t.listing, t.inSnapshot = false, false
	clear(t.deleted)
	clear(t.listed)
	clear(t.asking)
	clear(t.unread)
	t.questions = fifo{}
	for k, c := range t.containers {
		c.queued, c.inFlight = false, false
		if c.record == nil {
			delete(t.containers, k)
		}
	}
}

// settled tells that nothing is queued or awaited.
func (t *tracker) settled() bool { return !t.inSnapshot && t.questions.len() == 0 }
