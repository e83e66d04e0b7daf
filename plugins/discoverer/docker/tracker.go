package main

import (
	"google.golang.org/protobuf/proto"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// maxContainers that are followed; the daemon knows no more either.
const maxContainers = 65536

// tracker knows what was said of every container and decides what to say next.
// It does no I/O: events, lists and inspects are handed to it, in any order,
// and it never lets an older answer overwrite a newer fact. It belongs to one
// goroutine.
//
// What orders things is a clock of its own that ticks with every event. A
// container remembers the tick of its last event; a request remembers the tick
// at which it was sent. An answer asked for before the container's last event
// may be older than it, so the event's facts win; an event after which there is
// more to know has asked again by itself.
type tracker struct {
	describe *describer
	inv      discover.Inventory

	tick       uint64
	containers map[string]*tracked
	destroyed  map[string]struct{} // since the list under way was asked for
	listing    bool
	listTick   uint64

	urgent     fifo // to inspect: those with news
	background fifo // to inspect: those of a snapshot
	snapshot   int  // containers of the snapshot that are still to be inspected
	inSnapshot bool
	listTaken  bool // the snapshot's
	replayed   recent

	// counts since the tracker began, for the log
	inspects, failed, stale, ignored, refused uint64
}

type tracked struct {
	said     describe.Packed // nil: not told
	tick     uint64          // of the last event
	signal   string          // of the last kill
	oom      bool            // since the last start
	queued   queue
	inFlight bool
	awaited  bool // by the snapshot
	tries    int
}

func newTracker(inv discover.Inventory) *tracker {
	return &tracker{inv: inv, containers: map[string]*tracked{}, destroyed: map[string]struct{}{}}
}

// event takes one message of the engine's stream.
func (t *tracker) event(m *events.Message) error {
	if t.replayed.seen(m) {
		t.ignored++
		return nil
	}
	switch m.Type {
	case events.ContainerEventType:
		return t.containerEvent(m)
	case events.ImageEventType:
		if m.Action != events.ActionPull {
			return nil
		}
		return t.inv.Lifecycle(&protov1.Lifecycle{Action: "pulled", TimeUnixNano: m.TimeNano,
			Attributes: map[string]string{"image": describe.Cut(m.Actor.ID, describe.MaxName)}})
	case events.NetworkEventType:
		if id := m.Actor.Attributes["container"]; m.Action == events.ActionConnect || m.Action == events.ActionDisconnect {
			if c := t.containers[id]; c != nil {
				t.ask(id, c)
			}
		}
	}
	return nil
}

func (t *tracker) containerEvent(m *events.Message) error {
	id, action := m.Actor.ID, canonical(m.Action)
	if id == "" || action == "" {
		t.ignored++
		return nil
	}
	t.tick++
	c := t.containers[id]
	if action == events.ActionDestroy {
		return t.destroy(c, m)
	}
	if c == nil && action == actionCleanup {
		t.ignored++ // it may come behind the removal
		return nil
	}
	if c == nil {
		if c = t.add(id); c == nil {
			return nil
		}
	}
	c.tick = t.tick
	next := c.said.Container()
	if next == nil {
		next = t.fromEvent(m)
	}
	word := apply(next, c, action, m)
	if !c.said.Is(next) {
		if err := t.tell(c, next); err != nil {
			return err
		}
	}
	if word != "" {
		if err := t.lifecycle(c, next, word, m); err != nil {
			return err
		}
	}
	switch action {
	case events.ActionPause, events.ActionUnPause, events.ActionKill, events.ActionOOM:
		// The event tells all that changed.
	default:
		t.ask(id, c)
	}
	return nil
}

// tell sends a description. What is sent is no longer the tracker's, so it is a
// copy of what is remembered.
func (t *tracker) tell(c *tracked, next *protov1.Container) error {
	c.said = describe.Pack(next)
	return t.inv.Container(proto.CloneOf(next))
}

// add makes room for a container; nil: there is none.
func (t *tracker) add(id string) *tracked {
	if len(t.containers) >= maxContainers {
		t.refused++
		return nil
	}
	c := &tracked{}
	t.containers[id] = c
	return c
}

func (t *tracker) destroy(c *tracked, m *events.Message) error {
	id := m.Actor.ID
	if t.listing {
		t.destroyed[id] = struct{}{}
	}
	if c == nil {
		c = &tracked{}
	}
	last := c.said.Container()
	if last == nil {
		last = t.fromEvent(m)
	}
	if err := t.lifecycle(c, last, "removed", m); err != nil {
		return err
	}
	if err := t.forget(id); err != nil {
		return err
	}
	return t.settle()
}

func (t *tracker) forget(id string) error {
	if c := t.containers[id]; c != nil {
		t.arrived(c)
		delete(t.containers, id)
	}
	return t.inv.RemoveContainer(&protov1.ContainerRef{Id: describe.Cut(id, describe.MaxName)})
}

// connected begins a snapshot: the stream of events is open, and every one that
// comes from now on is told within it.
func (t *tracker) connected() error {
	t.inSnapshot, t.listTaken = true, false
	return t.inv.Reset()
}

// beginList must be called before a list is asked for.
func (t *tracker) beginList() {
	t.listing, t.listTick = true, t.tick
	clear(t.destroyed)
}

// listFailed ends a list that did not come.
func (t *tracker) listFailed() { t.listing = false }

// listed takes the list asked for by beginList. For a snapshot everything is
// told and inspected anew, before Synced; else only what differs.
func (t *tracker) listed(list []container.Summary, snapshot bool) error {
	t.listing, t.listTaken = false, true
	there := make(map[string]struct{}, len(list))
	for i := range list {
		s := &list[i]
		if _, gone := t.destroyed[s.ID]; gone || s.ID == "" {
			continue
		}
		there[s.ID] = struct{}{}
		if err := t.listedOne(s, snapshot); err != nil {
			return err
		}
	}
	for id, c := range t.containers {
		_, ok := there[id]
		switch {
		case ok:
		case c.tick > t.listTick: // created after the list was made, and told then
		case snapshot:
			t.arrived(c)
			delete(t.containers, id) // not told again before Synced
		default:
			if err := t.forget(id); err != nil {
				return err
			}
		}
	}
	clear(t.destroyed)
	return t.settle()
}

func (t *tracker) listedOne(s *container.Summary, snapshot bool) error {
	c := t.containers[s.ID]
	if c == nil {
		if c = t.add(s.ID); c == nil {
			return nil
		}
		if err := t.tell(c, t.describe.summarized(s)); err != nil {
			return err
		}
		t.await(s.ID, c, snapshot)
		return nil
	}
	next, differs := c.said.Container(), false
	if c.tick <= t.listTick {
		name, st := describe.Cut(summaryName(s.Names), describe.MaxName), state(s.State)
		if differs = next.Name != name || next.State != st; differs {
			next.Name, next.State = name, st
			if !exited(st) {
				next.ExitCode = nil
			}
			if st != protov1.Container_STATE_RUNNING && st != protov1.Container_STATE_PAUSED {
				next.Pid = 0
			}
		}
	}
	if snapshot || differs {
		if err := t.tell(c, next); err != nil {
			return err
		}
		t.await(s.ID, c, snapshot)
	}
	return nil
}

// settle ends the snapshot when nothing of it is missing.
func (t *tracker) settle() error {
	if !t.inSnapshot || !t.listTaken || t.snapshot > 0 {
		return nil
	}
	t.inSnapshot = false
	return t.inv.Synced()
}

// disconnected forgets what was under way; what is known stays.
func (t *tracker) disconnected() {
	t.listing, t.inSnapshot, t.snapshot = false, false, 0
	clear(t.destroyed)
	t.urgent, t.background = fifo{}, fifo{}
	for _, c := range t.containers {
		c.queued, c.inFlight, c.awaited = notQueued, false, false
	}
}

// settled tells that nothing is queued or awaited.
func (t *tracker) settled() bool { return !t.inSnapshot && t.urgent.len()+t.background.len() == 0 }
