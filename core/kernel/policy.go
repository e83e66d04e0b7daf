package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// Counts are what became of the events of one row:
// Seen = Kept + SampledOut + Filtered + Lost.
type Counts struct {
	Kept, SampledOut, Filtered, Lost uint64
	Bytes                            uint64 // of kept records
	Seen                             uint64
}

func (c *Counts) add(o Counts) {
	c.Kept += o.Kept
	c.SampledOut += o.SampledOut
	c.Filtered += o.Filtered
	c.Lost += o.Lost
	c.Bytes += o.Bytes
	c.Seen += o.Seen
}

// sub gives c - o. Kept alone may fall, by what turned out to be lost after it
// was read: it counts as nothing then, and o is made to remember.
func (c Counts) sub(o *Counts) Counts {
	d := Counts{
		SampledOut: c.SampledOut - o.SampledOut, Filtered: c.Filtered - o.Filtered,
		Lost: c.Lost - o.Lost, Bytes: c.Bytes - o.Bytes, Seen: c.Seen - o.Seen,
	}
	kept := max(c.Kept, o.Kept)
	d.Kept = kept - o.Kept
	*o = c
	o.Kept = kept
	return d
}

// Class names events that are decided alike. Group 0 is no group: the class is
// pooled.
type Class struct {
	Kind     event.Kind
	Priority event.Priority
	Group    uint32
}

func (c Class) compare(o Class) int {
	return cmp.Or(cmp.Compare(c.Group, o.Group), cmp.Compare(c.Kind, o.Kind), cmp.Compare(c.Priority, o.Priority))
}

// Rule is what a policy says of one class.
type Rule struct {
	// Probability of keeping an event, before ladder and valve.
	Probability float64
	// Expected is how many events of the class come in a second; twice as many make
	// a burst, in which the probability halves each time their number doubles. 0: not
	// known, and no burst.
	Expected float64
}

// Policy is a whole table: a rule for every pooled class, and for those of groups
// that have a row of their own.
type Policy struct {
	Pooled   [event.PooledRows]Rule // by event.Row
	Promoted map[Class]Rule
}

// Row is the ledger of one class.
type Row struct {
	Class
	Probability float64 // in force
	Counts
}

// Period is what was decided under one generation since the last call of Since.
type Period struct {
	Generation uint32
	Rows       []Row // only those that saw something
}

const (
	rowReserved = 1 << 0 // enum row_flag
	rowFree     = 1 << 1

	promotedRow = 128 // PROMOTED_ROW

	// epoch is the ladder's, in seconds: 1 << EPOCH_SHIFT ns.
	epoch = float64(1<<28) / 1e9

	// burst is how many times the expected number of events is one.
	burst = 2

	maxRows = 4096 // promoted ones, which a policy may name
	// tableBytes is what one table may take over all CPUs.
	tableBytes = 2 << 20
)

// policyRow is struct policy_row of bpf/abi.h.
type policyRow struct {
	Lost, Offered, SampledOut, Filtered, Bytes, Arrived uint64
	Threshold                                           uint64
	Generation, Flags, Ref                              uint32
	Epoch, Steps, Reserved                              uint32
	Span, Next, Random, Charged                         uint64
}

// rule is a row of a table as user space knows it.
type rule struct {
	class       Class
	used        bool
	probability float64
	ref         uint32 // events in an epoch on one CPU that begin a burst; 0: none do
	told        Counts // by Since
}

// table is one generation of the policy.
type table struct {
	m          *ebpf.Map
	generation uint32
	rules      []rule // up to the last that is used
}

// policyMaps holds the table in force, the places of the classes in it, and the
// totals of the tables before it.
type policyMaps struct {
	mu       sync.Mutex
	outer    *ebpf.Map
	now      *table
	spare    *ebpf.Map // the next table's
	groups   *groupRows
	valve    *valve
	cpus     int // of the rows
	active   int // CPUs that share the events of a class
	capacity int
	random   func() uint64

	places  map[Class]uint32 // rows of the promoted classes
	free    []uint32
	resting []uint32 // given back with the last swap: free from the next one on

	rows  []policyRow // see buffer
	past  [event.PooledRows]Counts
	ended []Period // generations that ended since the last call of Since
	swaps uint64
}

// rowCapacity is how many promoted rows a table has room for.
func rowCapacity(cpus int) int {
	return min(tableBytes/(cpus*int(unsafe.Sizeof(policyRow{})))-promotedRow, maxRows)
}

// sized gives the table's specification its number of rows.
func sized(policy *ebpf.MapSpec, cpus int) {
	policy.InnerMap.MaxEntries = uint32(promotedRow + max(rowCapacity(cpus), 0))
}

func newPolicyMaps(spec *ebpf.MapSpec, groups *groupRows, v *valve, random func() uint64) (*policyMaps, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count the CPUs: %w", err)
	}
	outer, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("make map policy: %w", err)
	}
	p := &policyMaps{
		outer: outer, groups: groups, valve: v, cpus: cpus, active: min(cpus, runtime.NumCPU()),
		capacity: max(rowCapacity(cpus), 0), random: random, places: map[Class]uint32{},
	}
	for row := p.capacity - 1; row >= 0; row-- {
		p.free = append(p.free, uint32(promotedRow+row))
	}
	if p.spare, err = ebpf.NewMap(spec.InnerMap); err != nil {
		return nil, errors.Join(fmt.Errorf("make a policy table: %w", err), p.close())
	}
	first := p.spare
	if p.spare, err = ebpf.NewMap(spec.InnerMap); err != nil {
		return nil, errors.Join(fmt.Errorf("make a policy table: %w", err), first.Close(), p.close())
	}
	p.now = &table{m: first}
	var all Policy
	for i := range all.Pooled {
		all.Pooled[i].Probability = 1
	}
	if _, err := p.set(all); err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.swaps = 0
	return p, nil
}

func (p *policyMaps) close() error {
	err := p.outer.Close()
	if p.now != nil {
		err = errors.Join(err, p.now.m.Close())
	}
	if p.spare != nil {
		err = errors.Join(err, p.spare.Close())
	}
	return err
}

// Capacity is how many classes of groups a policy has room for, and how many groups
// there can be.
func (k *Kernel) Capacity() (rows, groups int) { return k.policy.capacity, k.groups.capacity }

// SetPolicy puts a policy into force, all at once, and gives the generation that it
// got. Every event is decided and counted either under the old table or under the
// new one. Classes beyond Capacity stay pooled.
func (k *Kernel) SetPolicy(policy Policy) (uint32, error) { return k.policy.set(policy) }

func (p *policyMaps) set(policy Policy) (uint32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := &table{m: p.spare, generation: p.now.generation + 1}
	begun, err := p.place(policy)
	if err != nil {
		return 0, err
	}
	next.rules = p.lay(policy)
	if err := p.write(next); err != nil {
		return 0, err
	}
	// Returns only when no program uses the table before any more: the kernel
	// waits for that when a map within a map changes.
	if err := p.outer.Put(uint32(0), next.m); err != nil {
		return 0, fmt.Errorf("swap the policy table: %w", err)
	}
	old := p.now
	p.now, p.spare = next, old.m
	p.swaps++
	if err := p.groups.set(begun); err != nil {
		return next.generation, err
	}
	final, err := p.read(old)
	if err != nil {
		return next.generation, fmt.Errorf("close a policy table: %w", err)
	}
	p.endPeriod(old, final)
	for i := range final {
		if c := old.rules[i].class; old.rules[i].used {
			p.past[event.Row(c.Kind, c.Priority)].add(final[i])
		}
	}
	return next.generation, nil
}

// place gives rows to classes that are new, and takes those back that are promoted
// no more. A row that is taken back rests for one generation, in which programs that
// still know it charge it to its old class. It gives the new ones, which no program
// may know before their table is in force.
func (p *policyMaps) place(policy Policy) (begun map[Class]uint32, err error) {
	ended := map[Class]uint32{}
	for c := range p.places {
		if _, still := policy.Promoted[c]; !still {
			ended[c] = 0
		}
	}
	if err := p.groups.set(ended); err != nil {
		return nil, err
	}
	p.free = append(p.free, p.resting...)
	p.resting = p.resting[:0]
	begun = map[Class]uint32{}
	var news []Class
	for c := range policy.Promoted {
		if _, there := p.places[c]; !there {
			news = append(news, c)
		}
	}
	// In an order of their own, so that a simulation is the same again.
	slices.SortFunc(news, Class.compare)
	for _, c := range news[:min(len(news), len(p.free))] {
		row := p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
		p.places[c], begun[c] = row, row
	}
	for c := range ended {
		p.resting = append(p.resting, p.places[c])
		delete(p.places, c)
	}
	return begun, nil
}

// lay gives the rules of the next table by row.
func (p *policyMaps) lay(policy Policy) []rule {
	top := promotedRow
	for _, row := range p.places {
		top = max(top, int(row)+1)
	}
	for _, row := range p.resting {
		top = max(top, int(row)+1)
	}
	if len(p.places)+len(p.resting) == 0 {
		top = event.PooledRows
	}
	rules := make([]rule, top)
	for i, r := range policy.Pooled {
		kind, priority := event.RowClass(i)
		if kind.Internal() {
			r.Probability = 1 // attribution stands on these
		}
		rules[i] = rule{class: Class{Kind: kind, Priority: priority}, used: true, probability: r.Probability, ref: p.ref(r)}
	}
	for c, row := range p.places {
		r := policy.Promoted[c]
		rules[row] = rule{class: c, used: true, probability: r.Probability, ref: p.ref(r)}
	}
	for _, row := range p.resting {
		rules[row] = p.now.rules[row]
		rules[row].told = Counts{}
	}
	return rules
}

// ref is the number of events in an epoch on one CPU that begins a burst.
func (p *policyMaps) ref(r Rule) uint32 {
	if !(r.Expected > 0) {
		return 0
	}
	const least = 8 // events, which come by chance
	return uint32(min(max(math.Ceil(r.Expected*epoch*burst/float64(p.active)), least), math.MaxUint32))
}

// write fills a table that no program uses.
func (p *policyMaps) write(t *table) error {
	rows := p.buffer(len(t.rules))
	for i, r := range t.rules {
		row := policyRow{Threshold: event.Threshold(r.probability), Generation: t.generation, Ref: r.ref}
		switch {
		case r.class.Kind.Internal():
			row.Flags = rowFree
		case r.class.Priority == event.Critical:
			row.Flags = rowReserved
		}
		for cpu := range p.cpus {
			row.Random = p.random() | 1
			// What the row before it had not paid for is gone with it; so much, on
			// average, this one has to begin with.
			row.Charged = p.random() & (p.valve.quantum() - 1)
			rows[i*p.cpus+cpu] = row
		}
	}
	if err := writeRows(t.m, rows, p.cpus); err != nil {
		return fmt.Errorf("fill a policy table: %w", err)
	}
	return nil
}

// endPeriod keeps what an ended generation counted until Since tells it. When
// nobody asks, the oldest are forgotten; the totals never are.
func (p *policyMaps) endPeriod(t *table, final []Counts) {
	const most = 64
	if period := t.since(final); len(period.Rows) > 0 {
		p.ended = append(p.ended, period)
	}
	if len(p.ended) > most {
		p.ended = p.ended[len(p.ended)-most:]
	}
}

// since gives what a table counted since it was last told, and marks it told.
func (t *table) since(now []Counts) Period {
	period := Period{Generation: t.generation}
	for i := range now {
		r := &t.rules[i]
		diff := now[i].sub(&r.told)
		if diff == (Counts{}) {
			continue
		}
		period.Rows = append(period.Rows, Row{Class: r.class, Probability: r.probability, Counts: diff})
	}
	return period
}

// read adds up a table over the CPUs, by row. The kernel copies a row from its
// start, so that an event whose outcome was read has been read as seen, and one that
// was read as lost has been read as offered; what is offered and may yet be lost
// counts as kept.
func (p *policyMaps) read(t *table) ([]Counts, error) {
	if len(t.rules) == 0 { // never in force
		return nil, nil
	}
	out := make([]Counts, len(t.rules))
	rows := p.buffer(len(out))
	if err := readRows(t.m, rows, p.cpus); err != nil {
		return out, fmt.Errorf("read the policy table: %w", err)
	}
	for i := range out {
		for _, r := range rows[i*p.cpus : (i+1)*p.cpus] {
			out[i].add(Counts{
				Kept: r.Offered - r.Lost, SampledOut: r.SampledOut, Filtered: r.Filtered,
				Lost: r.Lost, Bytes: r.Bytes, Seen: r.Offered + r.SampledOut + r.Filtered,
			})
		}
	}
	return out, nil
}

// buffer is room for so many rows of all CPUs, until it is asked for again. With mu.
func (p *policyMaps) buffer(n int) []policyRow {
	if cap(p.rows) < n*p.cpus {
		p.rows = make([]policyRow, n*p.cpus)
	}
	return p.rows[:n*p.cpus]
}

// settle returns when no program that ran when it was called runs any more.
func (p *policyMaps) settle() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.outer.Put(uint32(0), p.now.m); err != nil {
		return fmt.Errorf("wait for programs in flight: %w", err)
	}
	return nil
}

// Since gives what was decided since the last call, a Period for each generation
// that was in force, the last being the one that is. For one caller.
func (k *Kernel) Since() ([]Period, error) { return k.policy.since() }

func (p *policyMaps) since() ([]Period, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, err := p.read(p.now)
	if err != nil {
		return nil, err
	}
	out := append(p.ended, p.now.since(now))
	p.ended = nil
	return out, nil
}

// Ledger gives the totals since Load, a Row for each kind and priority, and the
// generation in force. While programs run, outcomes never exceed what was seen,
// and fall short of it by what is being decided.
func (k *Kernel) Ledger() (rows []Row, generation uint32, swaps uint64, err error) {
	return k.policy.ledger()
}

func (p *policyMaps) ledger() (rows []Row, generation uint32, swaps uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, err := p.read(p.now)
	if err != nil {
		return nil, 0, 0, err
	}
	rows = make([]Row, event.PooledRows)
	for i := range rows {
		rows[i] = Row{Class: p.now.rules[i].class, Probability: p.now.rules[i].probability, Counts: p.past[i]}
	}
	for i := range now {
		if r := p.now.rules[i]; r.used {
			rows[event.Row(r.class.Kind, r.class.Priority)].add(now[i])
		}
	}
	return rows, p.now.generation, p.swaps, nil
}
