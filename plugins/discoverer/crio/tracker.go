package main

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	// maxTries is how often a status that went wrong is asked for before the container
	// stays as it is known, until its next event or a resync.
	maxTries = 3
	// maxContainers that are remembered; beyond it new ones are counted and left out.
	maxContainers = 16384
	// refreshed is how many running containers are asked for again at each resync:
	// their limits change without a word.
	refreshed = 32
	// earlyFor is how long a container is remembered whose cgroup was made and that the
	// runtime never listed.
	earlyFor = time.Minute
)

// tracker knows what was said of every container and pod and decides what to say next.
// It does no I/O: events, lists and answers are handed to it, in any order, and it
// never lets an older answer overwrite a newer fact. It belongs to one goroutine.
//
// What orders things is, of one container, how far its life is (stage), and of an
// answer that denies a container or tells of its limits a clock of the tracker's own,
// which ticks with all that is heard: an answer that was asked for before the last word
// on a container may be older than it.
type tracker struct {
	describe *describer
	inv      discover.Inventory
	now      func() time.Time
	events   bool // the runtime sends them
	inspects bool // it tells of containers that it does not list yet

	clock      uint64
	containers map[string]*tracked
	sandboxes  map[string]*sandbox
	pods       map[string]*pod                // by uid
	inSandbox  map[string]map[string]struct{} // the containers of a sandbox, without its own
	changed    []*pod                         // to be told
	rejoin     []string                       // sandboxes whose containers are to be described anew
	gone       recent

	listing    bool
	listClock  uint64
	inSnapshot bool
	listTaken  bool // the snapshot's
	silent     bool // the first snapshot: what it finds has not happened now
	awaited    int  // containers of the snapshot that are still to be asked for

	urgent     fifo // to ask for: those with news
	background fifo // to ask for: those of a snapshot
	inFlight   map[string]struct{}
	probes     probes

	// counts since the tracker began, for the log
	asked, failed, denied, stale, ignored, refused uint64
}

type tracked struct {
	said    describe.Packed    // nil: not told
	sandbox string             // as it was told
	kept    *protov1.Container // to be told with the answer to a question, or without it
	stage   stage              // what was told of its life
	heard   uint64             // the clock at the last word on it, lists apart
	asked   uint64             // the clock when it was last asked for
	since   time.Time          // that it is known
	queued  queue
	listed  bool // the runtime itself told of it, so that it may deny it
	named   bool // the image, as its user did
	awaited bool // by the snapshot
	tries   int
}

// queue tells where a container waits to be asked for.
type queue int

const (
	notQueued queue = iota
	inBackground
	inUrgent
)

func newTracker(inv discover.Inventory) *tracker {
	return &tracker{inv: inv, now: time.Now, silent: true,
		containers: map[string]*tracked{}, sandboxes: map[string]*sandbox{}, pods: map[string]*pod{}, inSandbox: map[string]map[string]struct{}{}, inFlight: map[string]struct{}{}}
}

// event takes one event of the runtime's stream.
func (t *tracker) event(h happening) error {
	if !t.nameable(h.id) || t.gone.has(h.id) {
		t.ignored++ // it may come behind the removal
		return nil
	}
	t.clock++
	if h.kind == cri.ContainerEventType_CONTAINER_DELETED_EVENT {
		if err := t.forget(h.id, h.at); err != nil {
			return err
		}
		return t.settle()
	}
	if h.sandbox.GetId() != "" {
		t.learnSandbox(t.describe.sandbox(h.sandbox))
		if err := t.tellPods(); err != nil {
			return err
		}
	}
	next := t.fromEvent(h)
	if next == nil {
		t.probe(h.id, false) // it is told of without a word about it
		return nil
	}
	if t.containers[h.id] == nil {
		from := early
		if t.silent {
			from = stageOfEvent(h.kind) - 1
		}
		if t.assume(h.id, from) == nil {
			return nil
		}
	}
	t.containers[h.id].listed = true
	if err := t.learn(next, h.at, false); err != nil {
		return err
	}
	if c := t.containers[h.id]; c != nil && h.kind != cri.ContainerEventType_CONTAINER_STOPPED_EVENT {
		t.ask(h.id, c)
	}
	return t.tellPods()
}

// fromEvent describes the container of an event by what the event tells; nil when it
// tells nothing and nothing is known.
func (t *tracker) fromEvent(h happening) *protov1.Container {
	var next *protov1.Container
	switch {
	case h.sandbox.GetId() == h.id:
		next = t.describe.sandboxContainer(h.sandbox)
	case h.status != nil:
		next = t.describe.container(h.status)
		t.join(next, h.sandbox.GetId())
	case t.containers[h.id] != nil:
		next = &protov1.Container{Id: h.id}
	default:
		return nil
	}
	if stageOf(next.State) < stageOfEvent(h.kind) {
		switch h.kind {
		case cri.ContainerEventType_CONTAINER_CREATED_EVENT:
			next.State = protov1.Container_STATE_CREATED
		case cri.ContainerEventType_CONTAINER_STARTED_EVENT:
			next.State, next.StartedUnixNano = protov1.Container_STATE_RUNNING, or(next.StartedUnixNano, h.at)
		case cri.ContainerEventType_CONTAINER_STOPPED_EVENT:
			next.State = protov1.Container_STATE_EXITED
		}
	}
	if stageOf(next.State) == exited && next.FinishedUnixNano == 0 && h.kind == cri.ContainerEventType_CONTAINER_STOPPED_EVENT {
		next.FinishedUnixNano = h.at
	}
	return next
}

func stageOfEvent(k cri.ContainerEventType) stage {
	switch k {
	case cri.ContainerEventType_CONTAINER_STARTED_EVENT:
		return started
	case cri.ContainerEventType_CONTAINER_STOPPED_EVENT:
		return exited
	}
	return created
}

// nameable tells whether an id can be told of.
func (t *tracker) nameable(id string) bool { return id != "" && len(id) <= describe.MaxName }

// assume begins the memory of a container whose life was that far before anybody
// asked.
func (t *tracker) assume(id string, s stage) *tracked {
	if len(t.containers) >= maxContainers {
		t.refused++
		return nil
	}
	c := &tracked{stage: s, since: t.now()}
	t.containers[id] = c
	return c
}

// learn takes a description of a container that may tell little, and tells what it
// comes to with what is known. whole says that all was asked for, and with it the image
// as its user named it. The clock must have ticked.
func (t *tracker) learn(next *protov1.Container, at int64, whole bool) error {
	c := t.containers[next.Id]
	if c == nil {
		if c = t.assume(next.Id, early); c == nil {
			return nil
		}
	}
	c.heard = t.clock
	if i := next.Image; i != nil && whole {
		c.named = i.Name != ""
	} else if i != nil && c.named {
		i.Name, i.Tag = "", "" // it may be another that the image has
	}
	said := c.said.Container()
	if said == nil {
		next = overlay(c.kept, next)
		if next.Type == typeSandbox && next.Image == nil && !whole {
			// No event tells the image of a sandbox's own container; its first events wait
			// for a description.
			c.kept = next
			t.ask(next.Id, c)
			return nil
		}
		c.kept = nil
	}
	next = overlay(said, next)
	if !c.said.Is(next) {
		if err := t.tell(c, next); err != nil {
			return err
		}
	}
	return t.advance(c, next, at)
}

// tellKept tells what was kept back for an answer that does not come.
func (t *tracker) tellKept(c *tracked) error {
	next := c.kept
	if next == nil {
		return nil
	}
	c.kept = nil
	if err := t.tell(c, next); err != nil {
		return err
	}
	return t.advance(c, next, t.now().UnixNano())
}

// tell sends a description. What is sent is no longer the tracker's, so it is a copy of
// what is remembered.
func (t *tracker) tell(c *tracked, next *protov1.Container) error {
	if c.sandbox != next.SandboxId {
		t.leave(next.Id, c.sandbox)
	}
	c.said, c.sandbox = describe.Pack(next), next.SandboxId
	t.expect(next.Id, next.SandboxId)
	return t.inv.Container(proto.CloneOf(next))
}

// forget takes a container back that the runtime removed, and with a sandbox those
// that were in it: not every runtime tells of them.
func (t *tracker) forget(id string, at int64) error {
	if t.sandboxes[id] != nil {
		for _, inner := range slices.Sorted(maps.Keys(t.inSandbox[id])) {
			if err := t.forgetOne(inner, t.containers[inner], at); err != nil {
				return err
			}
		}
	}
	if err := t.forgetOne(id, t.containers[id], at); err != nil {
		return err
	}
	t.dropSandbox(id)
	return t.tellPods()
}

func (t *tracker) forgetOne(id string, c *tracked, at int64) error {
	t.gone.add(id, forever)
	if c == nil {
		return nil
	}
	if c.said == nil {
		t.drop(id, c)
		return nil
	}
	if c.listed {
		if err := t.lifecycle(c.said.Container(), "removed", at, ""); err != nil {
			return err
		}
	}
	t.drop(id, c)
	return t.inv.RemoveContainer(&protov1.ContainerRef{Id: id})
}

// drop ends the memory of a container.
func (t *tracker) drop(id string, c *tracked) {
	t.arrived(c)
	t.leave(id, c.sandbox)
	delete(t.containers, id)
}

// connected begins a snapshot: the stream of events is open, and every one that comes
// from now on is told within it.
func (t *tracker) connected() error {
	t.inSnapshot, t.listTaken = true, false
	for _, p := range t.pods {
		p.said = nil // told again
	}
	return t.inv.Reset()
}

// beginList must be called before a list is asked for.
func (t *tracker) beginList() {
	t.listing, t.listClock = true, t.clock
}

// listFailed ends a list that did not come.
func (t *tracker) listFailed() { t.listing = false }

// listed takes the list asked for by beginList. For a snapshot everything is told and
// asked for anew, before Synced; else only what differs.
func (t *tracker) listed(l list, snapshot bool) error {
	t.listing, t.listTaken = false, true
	t.clock++
	there := make(map[string]struct{}, len(l.containers)+len(l.sandboxes))
	for _, s := range l.sandboxes {
		if t.isListed(s.GetId(), there) {
			t.learnSandbox(t.describe.listedSandbox(s))
		}
	}
	t.dropAbsentSandboxes(there)
	for _, c := range l.containers {
		if t.isListed(c.GetId(), there) && (t.containers[c.GetId()] != nil || len(t.containers) < maxContainers) {
			t.expect(c.GetId(), c.GetPodSandboxId())
		}
	}
	if err := t.tellPods(); err != nil {
		return err
	}
	for _, s := range l.sandboxes {
		state := sandboxState(s.GetState())
		if err := t.listedOne(s.GetId(), state, snapshot, func() *protov1.Container { return t.describe.listedSandboxContainer(s) }); err != nil {
			return err
		}
	}
	for _, c := range l.containers {
		state := containerState(c.GetState())
		if err := t.listedOne(c.GetId(), state, snapshot, func() *protov1.Container {
			next := t.describe.listed(c)
			t.join(next, c.GetPodSandboxId())
			return next
		}); err != nil {
			return err
		}
	}
	if err := t.dropAbsent(there, snapshot); err != nil {
		return err
	}
	if err := t.tellPods(); err != nil {
		return err
	}
	return t.settle()
}

func (t *tracker) isListed(id string, there map[string]struct{}) bool {
	if !t.nameable(id) || !t.gone.isBack(id, t.listClock) {
		return false
	}
	there[id] = struct{}{}
	return true
}

func (t *tracker) listedOne(id string, state protov1.Container_State, snapshot bool, describe func() *protov1.Container) error {
	if !t.nameable(id) || t.gone.has(id) {
		return nil
	}
	c := t.containers[id]
	isNew := c == nil
	if isNew {
		from := early
		if t.silent {
			from = stageOf(state)
		}
		if c = t.assume(id, from); c == nil {
			return nil // counted
		}
	}
	c.listed = true
	if isNew || stageOf(state) > c.stage || c.said == nil {
		next := describe()
		if stageOf(state) > max(created, c.stage) {
			// A list has neither times nor an exit code: what happened is told by the
			// answer that follows.
			next.State = protov1.Container_STATE_UNSPECIFIED
		}
		if err := t.learn(next, t.now().UnixNano(), false); err != nil {
			return err
		}
		t.await(id, c, snapshot)
		return nil
	}
	if !snapshot {
		return nil
	}
	t.await(id, c, true)
	return t.tell(c, c.said.Container())
}

// dropAbsent forgets the containers that a list does not have.
func (t *tracker) dropAbsent(there map[string]struct{}, snapshot bool) error {
	now := t.now()
	for id, c := range t.containers {
		_, ok := there[id]
		switch {
		case ok:
		case c.heard > t.listClock: // heard of after the list was made, and told then
		case !c.listed && now.Sub(c.since) < earlyFor: // not listed yet
			if snapshot && c.said != nil {
				if err := t.tell(c, c.said.Container()); err != nil {
					return err
				}
			}
		default:
			if err := t.forgetAbsent(id, c, snapshot); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgetAbsent forgets a container that is not in a list. One of a snapshot is taken
// back by not being told again before Synced.
func (t *tracker) forgetAbsent(id string, c *tracked, snapshot bool) error {
	t.gone.add(id, t.clock)
	if c.said == nil {
		t.drop(id, c)
		return nil
	}
	if c.listed {
		if err := t.lifecycle(c.said.Container(), "removed", t.now().UnixNano(), ""); err != nil {
			return err
		}
	}
	t.drop(id, c)
	if snapshot {
		return nil
	}
	return t.inv.RemoveContainer(&protov1.ContainerRef{Id: id})
}

// refresh asks again for some running containers, those first that were not asked for
// the longest.
func (t *tracker) refresh() {
	for range refreshed {
		least, at := "", t.clock+1
		for id, c := range t.containers {
			if c.stage == started && c.queued == notQueued && c.asked < at && t.sandboxes[id] == nil {
				least, at = id, c.asked
			}
		}
		if least == "" {
			return
		}
		t.askLater(least, t.containers[least])
	}
}

// settle ends the snapshot when nothing of it is missing.
func (t *tracker) settle() error {
	if !t.inSnapshot || !t.listTaken || t.awaited > 0 {
		return nil
	}
	t.inSnapshot, t.silent = false, false
	return t.inv.Synced()
}

// disconnected forgets what was under way; what is known stays.
func (t *tracker) disconnected() {
	t.listing, t.inSnapshot, t.awaited = false, false, 0
	t.urgent, t.background, t.probes = fifo{}, fifo{}, probes{}
	clear(t.inFlight)
	for _, c := range t.containers {
		c.queued, c.awaited = notQueued, false
	}
}

// settled tells that nothing is queued or awaited.
func (t *tracker) settled() bool { return !t.inSnapshot && t.urgent.len()+t.background.len() == 0 }
