package pipeline

import (
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
)

// Attribution says whose an event is.
type Attribution struct {
	Workload *inventory.Workload // nil: no container's, or not known
	// Pending: the cgroup is named like a container, Hint, or was never told,
	// and nobody described it in time.
	Pending bool
	Hint    string // the container id in the cgroup's path
}

// Exporter takes released events. Its methods are called from the goroutine that
// reads the rings, so they never block: what does not fit is dropped and counted
// by the exporter.
type Exporter interface {
	// Export takes one event; e and its slices are valid only during the call.
	Export(e *event.Event, a Attribution)
	// Flush is called when no more events are at hand for now.
	Flush()
	// Congested tells that the exporter is getting on, but more slowly than
	// events come: that it would soon drop some.
	Congested() bool
}

// Inventory answers whose a cgroup is.
type Inventory interface {
	Lookup(id uint64) *inventory.Cgroup
	CgroupCreated(id uint64, path string, at time.Time)
	CgroupRemoved(id uint64, at time.Time)
}

// Options of New.
type Options struct {
	Inventory Inventory
	Exporters []Exporter
	// Hold is how long an event waits for its container's metadata, 0: not at
	// all; HoldCgroup and HoldTotal how many do, of one cgroup and in all.
	Hold       time.Duration
	HoldCgroup int
	HoldTotal  int
	// ByPID gives the container of an event that the cgroup says is the host's, by the
	// pid namespace; nil where it is the host's indeed. It is asked about events in
	// their order, and is to be cheap. ByPID nil: the cgroup has the last word.
	ByPID func(*event.Event) *inventory.Workload
	// Unknown is called for every event of a cgroup that was never told. It must
	// not block, and be cheap.
	Unknown func()
	// Wake is called when there is something to inject, so that Drained is called
	// soon. It must not block. nil: it will be.
	Wake func()
	// Monotonic is the clock of the events, in nanoseconds.
	Monotonic func() uint64
	// Wall is a moment of that clock on the wall's.
	Wall func(monotonic uint64) time.Time
}

// Stats are totals since the start, but for Held:
// Decoded + Injected = Released + Held.
type Stats struct {
	Decoded, Malformed, Injected, Released, Held uint64

	Host, Container, Pending uint64 // released, by attribution
	ByPID                    uint64 // of Container: by the pid namespace, not the cgroup

	HeldTotal, HeldExpired, HeldOverflow uint64
	Delay                                Histogram // of the events that waited

	// FirstExecs are the first execs that were met of containers' cgroups, and of those
	// that may be one's; FirstExecsNamed those that were released with the container's
	// id, name and image.
	FirstExecs, FirstExecsNamed uint64

	ByKind [event.Kinds]uint64 // released

	byLife [injectedRows]uint64 // injected, by class
}

// Pipeline is a kernel.Sink. All methods but Stats are for one goroutine.
type Pipeline struct {
	options Options
	decoder Decoder
	event   event.Event
	holds   holds
	stats   Stats
	lives   lives

	lastID uint64 // the cgroup of the last event, since events come in runs
	last   *inventory.Cgroup

	mu        sync.Mutex
	published Stats
}

// New makes a pipeline. Exporters get events in the order given.
func New(o Options) *Pipeline {
	if o.Unknown == nil {
		o.Unknown = func() {}
	}
	if o.ByPID == nil {
		o.ByPID = func(*event.Event) *inventory.Workload { return nil }
	}
	return &Pipeline{
		options: o, holds: newHolds(o.HoldCgroup, o.HoldTotal),
		lives: lives{waiting: make(chan waitingLife, LifeQueue)},
	}
}

// Record takes one raw record from a ring.
func (p *Pipeline) Record(record []byte) {
	if err := p.decoder.Decode(record, &p.event); err != nil {
		p.stats.Malformed++
		return
	}
	p.stats.Decoded++
	e := &p.event
	switch e.Kind {
	case event.CgroupCreate:
		p.options.Inventory.CgroupCreated(e.CgroupID, string(e.Cgroup.Path), p.options.Wall(e.TimeNS))
		p.last = nil
		p.release(e, Attribution{})
		return
	case event.CgroupRemove:
		p.options.Inventory.CgroupRemoved(e.CgroupID, p.options.Wall(e.TimeNS))
		p.release(e, Attribution{})
		return
	}
	p.attribute(e, record)
}

// attribute releases an event with its workload, or holds it.
func (p *Pipeline) attribute(e *event.Event, record []byte) {
	g := p.last
	if g == nil || p.lastID != e.CgroupID {
		g = p.options.Inventory.Lookup(e.CgroupID)
		p.last, p.lastID = g, e.CgroupID
	}
	a, wait := p.attribution(g, e.CgroupID)
	if h := p.holds.of(e.CgroupID); h != nil && !wait {
		// What waits goes before it, and would overwrite e: take e up again.
		p.releaseHeld(h, a)
		if err := p.decoder.Decode(record, e); err != nil {
			panic("pipeline: a record that was decoded once is malformed: " + err.Error())
		}
	}
	if wait {
		if p.holds.add(e.CgroupID, p.options.Monotonic(), record) {
			p.stats.HeldTotal++
			return
		}
		p.stats.HeldOverflow++
	}
	p.release(e, a)
}

// attribution is what is known of a cgroup now, and whether more is worth
// waiting for.
func (p *Pipeline) attribution(g *inventory.Cgroup, id uint64) (a Attribution, wait bool) {
	if g == nil {
		if id == 0 { // a socket of no cgroup
			return a, false
		}
		p.options.Unknown()
		return Attribution{Pending: true}, p.options.Hold > 0 && !p.holds.waived(id)
	}
	if w := g.Workload(); w != nil {
		// Of some only the id is told at first, and the name a moment later.
		return Attribution{Workload: w}, w.Container.GetName() == "" && p.options.Hold > 0 && !g.Waived()
	}
	if g.State() == inventory.Host {
		return a, false
	}
	return Attribution{Pending: true, Hint: g.Hint()}, p.options.Hold > 0 && !g.Waived()
}

func (p *Pipeline) release(e *event.Event, a Attribution) {
	if e.Kind == event.ProcessExec && (a.Workload != nil || a.Pending) {
		p.first(e, a)
	}
	if a.Workload == nil && !a.Pending && !e.Kind.Internal() && !e.Kind.Injected() {
		if a.Workload = p.options.ByPID(e); a.Workload != nil {
			p.stats.ByPID++
		}
	}
	p.stats.Released++
	p.stats.ByKind[e.Kind]++
	switch {
	case a.Workload != nil:
		p.stats.Container++
	case a.Pending:
		p.stats.Pending++
	default:
		p.stats.Host++
	}
	for _, x := range p.options.Exporters {
		x.Export(e, a)
	}
}

// again is how often held events are looked at.
const again = 5 * time.Millisecond

// Drained releases what waits to be injected and the held events whose metadata has
// come or whose time is up, flushes the exporters and publishes the statistics. What
// waits to be injected comes first: a container's creation was told before what was held
// of it could be attributed.
func (p *Pipeline) Drained() time.Duration {
	p.inject(false)
	if p.holds.count > 0 {
		p.review(false)
	}
	for _, x := range p.options.Exporters {
		x.Flush()
	}
	p.publish()
	if p.holds.count > 0 || p.lives.taken {
		return again
	}
	return 0
}

// Congested tells whether one of the exporters is.
func (p *Pipeline) Congested() bool {
	for _, x := range p.options.Exporters {
		if x.Congested() {
			return true
		}
	}
	return false
}

// Close releases everything that is held or waits to be injected. After it Stats are final.
func (p *Pipeline) Close() {
	p.closeLives()
	p.review(true)
	for _, x := range p.options.Exporters {
		x.Flush()
	}
	p.publish()
}

// review goes through the cgroups that wait, in the order in which they began to.
func (p *Pipeline) review(all bool) {
	now := p.options.Monotonic()
	p.holds.each(func(h *hold) (done bool) {
		g := p.options.Inventory.Lookup(h.cgroup)
		a, wait := p.attribution(g, h.cgroup)
		late := now-h.since >= uint64(p.options.Hold)
		if wait && !late && !all {
			return false
		}
		if wait && late {
			p.stats.HeldExpired += uint64(len(h.records))
			if g != nil {
				g.Waive()
			} else {
				p.holds.waive(h.cgroup)
			}
		}
		p.releaseHeld(h, a)
		return true
	})
}

// releaseHeld releases what waits of one cgroup, in order.
func (p *Pipeline) releaseHeld(h *hold, a Attribution) {
	now := p.options.Monotonic()
	for _, r := range h.records {
		if err := p.decoder.Decode(r, &p.event); err != nil {
			panic("pipeline: a record that was decoded once is malformed: " + err.Error())
		}
		p.stats.Delay.Observe(time.Duration(now - min(now, p.event.TimeNS)))
		p.release(&p.event, a)
	}
	p.holds.empty(h)
}

func (p *Pipeline) publish() {
	p.stats.Held = uint64(p.holds.count)
	p.mu.Lock()
	p.published = p.stats
	p.mu.Unlock()
}

// Stats as of the last time the rings were empty. Safe at any time.
func (p *Pipeline) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.published
}
