package resource

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Inventory says which containers there are; *inventory.Inventory does.
type Inventory interface {
	Containers() []inventory.View
	Get(*protov1.ContainerRef) (inventory.View, bool)
	Lookup(cgroup uint64) *inventory.Cgroup
	Observe(inventory.Observer) (stop func())
}

// Traffic counts what cgroups send and receive; *kernel.Account does.
type Traffic interface {
	Each(func(cgroup uint64, t kernel.Traffic) bool) error
	Of(cgroup uint64) (kernel.Traffic, error)
	Forget(cgroup uint64) (kernel.Traffic, error)
	Overflow() (kernel.Traffic, error)
}

// Options of New.
type Options struct {
	Inventory   Inventory
	Hierarchies *Hierarchies
	Traffic     Traffic // nil: the network is not accounted
	// Interval is how often each container is read; 0: ten seconds.
	Interval time.Duration
	// Most containers that are read; those beyond are counted. 0: 2,000.
	Most int
	// Exported is how many containers WriteMetrics tells of at most: those that use the
	// most CPU.
	Exported int
	// WarnAt is the share of a limit from which on there is a warning; 0: there is none.
	WarnAt float64
	Log    *slog.Logger // of warnings, and of what goes wrong; nil: nothing is logged
	Proc   string       // where processes are seen; "": /proc
	Now    func() time.Time
}

const (
	// slots is in how many parts an interval is cut at most: so seldom does Run wake up.
	slots = 100
	// queueSize is how many containers may have changed and not been looked at; when
	// more do, all are.
	queueSize = 1024
	// limitsEvery is each how many readings the files that change seldom are read.
	limitsEvery = 6
	// fresh is how old a reading may be that Of gives.
	fresh = time.Second
)

// Monitor is safe for use by several goroutines. Run does the reading; without it Of
// reads by itself and WriteMetrics has nothing to tell.
type Monitor struct {
	options Options
	queue   chan key
	missed  atomic.Uint64 // changes that found no room in it

	mu         sync.Mutex // held for one container's reading at a time
	reader     *reader
	containers map[key]*container
	owners     map[inventory.Handle]*container
	order      []*container // of reading
	left       int          // beyond Most, as of the beginning of the pass
	charged    map[uint64]charge
	strange    map[uint64]struct{} // cgroups with traffic that the inventory did not know in the last pass
	unplaced   kernel.Traffic      // of cgroups that were gone before it was known whose they were
	stats      Stats
	limits     limits

	// Of the goroutine of Run.
	began   time.Time // this pass
	next    int       // in order
	listed  []entry   // of the traffic, reused
	waiting []warning // to be logged
}

// Stats: totals since the start, but for Containers, Left and Open.
type Stats struct {
	Containers int           // that are read
	Left       int           // that are not, for there are more than Options.Most
	Open       int           // files that are kept open
	Readings   uint64        // of a container
	Gone       uint64        // readings that found its control groups gone
	Failed     uint64        // files that were there and could not be read
	Reading    time.Duration // that readings took
	Missed     uint64        // changes of containers that found no room; all were looked at
	Faults     uint64        // times that the traffic could not be read
	Warnings   [Limits]uint64
}

// New makes one that has read nothing yet.
func New(o Options) *Monitor {
	if o.Interval == 0 {
		o.Interval = 10 * time.Second
	}
	if o.Most == 0 {
		o.Most = 2000
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Monitor{
		options: o, queue: make(chan key, queueSize), reader: newReader(o.Hierarchies),
		containers: map[key]*container{}, owners: map[inventory.Handle]*container{}, charged: map[uint64]charge{},
	}
}

// Run reads every container once in an interval, spread over it, until ctx is done. A
// container that is new is read at once.
func (m *Monitor) Run(ctx context.Context) {
	stop := m.options.Inventory.Observe(inventory.Observer{Workload: m.hear})
	defer m.close()
	defer stop()
	m.begin(m.options.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case k := <-m.queue:
			m.look(k)
		case <-timer.C:
			timer.Reset(m.step(m.options.Now()))
		}
		m.tell()
	}
}

// close closes what is open.
func (m *Monitor) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.containers {
		m.reader.free(&c.source)
	}
}

// hear notes that a container has changed. It is called under the inventory's lock.
func (m *Monitor) hear(change *protov1.InventoryChange) {
	var k key
	switch c := change.GetChange().(type) {
	case *protov1.InventoryChange_Container:
		k = key{c.Container.GetScope(), c.Container.GetId()}
	case *protov1.InventoryChange_Removed:
		k = key{c.Removed.GetContainer().GetScope(), c.Removed.GetContainer().GetId()}
	}
	if k.id == "" {
		return
	}
	select {
	case m.queue <- k:
	default: // the next pass looks at all
		m.missed.Add(1)
	}
}

// look looks at a container that has changed.
func (m *Monitor) look(k key) {
	v, ok := m.options.Inventory.Get(k.ref())
	now := m.options.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !ok {
		m.forget(k)
		return
	}
	if c, changed := m.consider(k, v); changed {
		m.readOne(c, now)
	}
}

// begin begins a pass: it lists what there is to read.
func (m *Monitor) begin(now time.Time) {
	views := m.options.Inventory.Containers()
	m.list()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.began, m.next, m.left = now, 0, 0
	there := make(map[key]struct{}, len(views))
	for _, v := range views {
		there[keyOf(v)] = struct{}{}
	}
	for k := range m.containers {
		if _, ok := there[k]; !ok {
			m.forget(k)
		}
	}
	for _, v := range views {
		if c, _ := m.consider(keyOf(v), v); c == nil && runs(v.Container) {
			m.left++
		}
	}
	m.charge()
	m.choose()
}

// step reads the containers whose turn has come, and says when the next one's comes.
func (m *Monitor) step(now time.Time) time.Duration {
	interval := m.options.Interval
	if now.Sub(m.began) >= interval && m.next >= len(m.order) {
		m.begin(now)
	}
	n := len(m.order)
	// Those that are late, after a pause of the machine say, are caught up with at twice
	// the pace, not at once.
	elapsed := min(now.Sub(m.began), interval)
	due := min(int(int64(n)*int64(elapsed)/int64(interval))+1, m.next+2*n/slots+1, n)
	for ; m.next < due; m.next++ {
		m.mu.Lock()
		if m.next < len(m.order) {
			m.readOne(m.order[m.next], m.options.Now())
		}
		m.mu.Unlock()
	}
	at := m.began.Add(interval)
	if m.next < n {
		at = m.began.Add(time.Duration(int64(interval) * int64(m.next) / int64(n)))
	}
	return max(at.Sub(now), interval/slots)
}

// Last gives the last reading of a container, which is at most an interval old; false:
// there is none. It costs no reading, so that a list of all containers doesn't either.
func (m *Monitor) Last(ref *protov1.ContainerRef) (*protov1.Usage, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.containers[key{ref.GetScope(), ref.GetId()}]
	if c == nil || c.usage.time == 0 {
		return nil, false
	}
	return c.usage.Proto(), true
}

// Of gives what a container uses; false: it is not known. The reading is at most a
// second old; of a container that is not among those that Run reads it is a new one.
func (m *Monitor) Of(ref *protov1.ContainerRef) (*protov1.Usage, bool) {
	v, ok := m.options.Inventory.Get(ref)
	if !ok || !runs(v.Container) {
		return nil, false
	}
	now := m.options.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.containers[keyOf(v)]
	if c == nil { // or there are too many
		c = m.newContainer(v)
		m.sum(c)
		if err := m.read(c, now, false); err != nil {
			return nil, false
		}
		return c.usage.Proto(), true
	}
	if now.Sub(time.Unix(0, c.usage.time)) >= fresh {
		c.cgroups = v.CgroupIDs
		m.refresh(c)
		if err := m.read(c, now, true); err != nil {
			return nil, false
		}
	}
	return c.usage.Proto(), true
}

// Stats as of now.
func (m *Monitor) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Containers, s.Left = len(m.containers), m.left
	s.Open, s.Failed = m.reader.open, m.reader.failed
	s.Missed, s.Warnings = m.missed.Load(), m.limits.warnings
	return s
}
