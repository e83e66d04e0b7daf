package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/watch"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// DiscovererHandler is told what a discoverer found.
type DiscovererHandler struct {
	// Changes takes each batch, in order, one at a time. While it works the
	// plugin waits, and nobody else. The order of changes has been checked
	// against the contract, their contents have not. The batch is the callee's.
	Changes func([]*protov1.InventoryChange)
	// Lost says that the stream of the changes so far has ended: what they told
	// is stale until the next reset. It is never called during Changes.
	Lost func(reason string)
	// Facts lists all host facts that were subscribed to, as they are now, with
	// change "present". It is called when a plugin subscribes, and after facts
	// were dropped. nil: there are none.
	Facts func(*protov1.Subscribe) []*protov1.HostFact
}

// Discoverer is a discoverer under supervision.
type Discoverer struct {
	*Plugin
	handler    DiscovererHandler
	facts      *queue[*protov1.HostFact]
	subscribed atomic.Pointer[protov1.Subscribe] // nil: not, or no stream
}

var _ kind = (*Discoverer)(nil)

// RunDiscoverer supervises a discoverer until ctx is done. It returns at once.
func (h *Host) RunDiscoverer(ctx context.Context, s Spec, handler DiscovererHandler) (*Discoverer, error) {
	if k := s.Entry.Manifest.Kind; k != config.Discoverer {
		return nil, fmt.Errorf("run discoverer: %s is a %s", s.Entry, k)
	}
	d := &Discoverer{Plugin: h.plugin(s), handler: handler, facts: newQueue[*protov1.HostFact]()}
	if err := d.supervise(ctx, d); err != nil {
		return nil, fmt.Errorf("run plugin %s: %w", s.Entry, err)
	}
	return d, nil
}

// Tell passes a host fact on to a plugin that subscribed to its kind. It never
// blocks. Whoever calls it has made the fact visible to DiscovererHandler.Facts. That
// something is gone, and what is not awaited, is told a little later, where nothing else
// is to be told; of a cgroup that was not awaited and is gone by then nothing is.
func (d *Discoverer) Tell(f *protov1.HostFact, awaited bool) {
	s := d.subscribed.Load()
	if s == nil {
		return
	}
	switch what := f.GetFact().(type) {
	case *protov1.HostFact_Process:
		if s.GetProcesses() {
			d.facts.put(f)
		}
	case *protov1.HostFact_Cgroup:
		gone := what.Cgroup.GetChange() == protov1.CgroupFact_CHANGE_REMOVED
		switch {
		case !s.GetCgroups():
		case awaited && !gone:
			d.facts.put(f)
		case gone && !awaited && d.facts.drop(func(q *protov1.HostFact) bool {
			return q.GetCgroup().GetId() == what.Cgroup.GetId() && q.GetCgroup().GetChange() == protov1.CgroupFact_CHANGE_CREATED
		}):
		default:
			d.facts.putLater(f)
		}
	}
}

// ErrNotRunning says that a plugin has no process to be asked at the moment.
var ErrNotRunning = errors.New("the plugin is not running")

// Detect asks whether the runtime is on this host, and where it is or what was
// looked for.
func (d *Discoverer) Detect(ctx context.Context) (present bool, detail string, err error) {
	d.mu.Lock()
	i := d.inst
	d.mu.Unlock()
	if i == nil {
		return false, "", ErrNotRunning
	}
	return i.detect(ctx)
}

func (i *instance) detect(ctx context.Context) (bool, string, error) {
	r, err := protov1.NewDiscovererClient(i.conn).Detect(ctx, &protov1.DetectRequest{})
	if err != nil {
		return false, "", fmt.Errorf("detect: %w", i.rpcError(err))
	}
	return r.GetPresent(), r.GetDetail(), nil
}

// Detection is what a discoverer says that was started only to be asked.
type Detection struct {
	Description Description
	Present     bool
	Detail      string // where its runtime is, or what was looked for
}

// Detect starts a discoverer only to ask whether its runtime is on this host. It runs
// with the rights that it would work with, and is given the configuration that
// configure makes of what it says of itself; nil: that of s. An error of configure is
// returned as it is, with the description. Each step has its deadline.
func (h *Host) Detect(ctx context.Context, s Spec, configure func(Description) ([]byte, error)) (d Detection, err error) {
	how, err := h.working(s)
	if err != nil {
		return d, err
	}
	session, err := h.open(ctx, s.Entry, how)
	if err != nil {
		return d, err
	}
	defer session.Close()
	if d.Description, err = session.Describe(ctx); err != nil {
		return d, err
	}
	if configure != nil {
		if s.Config, err = configure(d.Description); err != nil {
			return d, err
		}
	}
	steps := []struct {
		within time.Duration
		do     func(context.Context) error
	}{
		{h.pace.ConfigureTimeout, func(ctx context.Context) error { _, err := session.inst.configure(ctx, s); return err }},
		{h.pace.DetectTimeout, func(ctx context.Context) (err error) { d.Present, d.Detail, err = session.inst.detect(ctx); return err }},
	}
	for _, step := range steps {
		ctx, cancel := context.WithTimeout(ctx, step.within)
		err := step.do(ctx)
		cancel()
		if err != nil {
			return d, withLastWords(fmt.Errorf("plugin %s: %w", s.Entry, err), session.out)
		}
	}
	return d, nil
}

// Watch calls changed when something that a plugin's manifest names comes, goes or takes
// another's place; another is false when only entries of a directory changed. changed
// must not wait for anything.
func (h *Host) Watch(e Entry, changed func(another bool)) *watch.Watch {
	places := reached(Rights(e.Manifest.Needs, nil, "", h.opts.HostRoot)).places
	return h.watcher.Watch(places, func(c watch.Change) { changed(c.Another) })
}

func (d *Discoverer) queued() (depth, dropped uint64) { return d.facts.state() }

func (d *Discoverer) lost(reason string) { d.handler.Lost(reason) }

func (d *Discoverer) stream(ctx context.Context, i *instance, open func()) error {
	ctx, cancel := context.WithCancel(ctx)
	st, err := protov1.NewDiscovererClient(i.conn).Discover(ctx)
	if err != nil {
		cancel()
		return err
	}
	open()
	told := make(chan struct{})
	telling := false
	order := changeOrder{}
	defer func() {
		cancel()
		d.subscribed.Store(nil)
		if telling {
			<-told
		}
		d.facts.end()
	}()
	for {
		batch, err := st.Recv()
		if err != nil {
			return err
		}
		changes, subscribe, refused, err := order.check(batch.GetChanges())
		d.refused.Add(refused)
		if err != nil {
			return err
		}
		if subscribe != nil && !telling && d.handler.Facts != nil {
			telling = true
			d.facts.begin()
			d.subscribed.Store(subscribe)
			go func() {
				defer close(told)
				d.tell(ctx, i, st, subscribe)
			}()
		}
		if len(changes) > 0 {
			d.handler.Changes(changes)
		}
	}
}

// tell sends facts: the list, and then what changes. A stream that it can't send
// to ends in the receiver too, which knows why.
func (d *Discoverer) tell(ctx context.Context, i *instance, st grpc.BidiStreamingClient[protov1.HostFacts, protov1.InventoryChanges], s *protov1.Subscribe) {
	var missed uint64
	send := func(facts []*protov1.HostFact) error {
		i.told.Add(1)
		return st.Send(&protov1.HostFacts{Facts: facts, Missed: missed})
	}
	list := func() []*protov1.HostFact {
		all := []*protov1.HostFact{{Fact: &protov1.HostFact_Reset_{Reset_: &protov1.Reset{}}}}
		all = append(all, d.handler.Facts(s)...)
		return append(all, &protov1.HostFact{Fact: &protov1.HostFact_Synced{Synced: &protov1.Synced{}}})
	}
	facts := list()
	for {
		refused, err := inBatches(facts, send)
		d.refused.Add(refused)
		if err != nil {
			return
		}
		var again bool
		if facts, again, missed, err = d.facts.take(ctx); err != nil {
			return
		}
		if again {
			// What came after the gap follows the list, which holds the rest.
			facts = append(list(), facts...)
		}
	}
}
