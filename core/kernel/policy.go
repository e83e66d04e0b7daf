package kernel

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

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

// Row is the ledger of one row of the policy.
type Row struct {
	Kind        event.Kind
	Priority    event.Priority
	Probability float64 // in force
	Counts
}

// Period is what was decided under one generation since the last call of Since.
type Period struct {
	Generation uint32
	Rows       []Row // only those that saw something
}

// policyRow is struct policy_row of bpf/abi.h.
type policyRow struct {
	Lost, Offered, SampledOut, Filtered, Bytes, Seen uint64
	Threshold, Random                                uint64
	Generation, Reserved                             uint32
}

// table is one generation of the policy: a rule and a count for each row.
type table struct {
	m           *ebpf.Map
	generation  uint32
	probability [event.PooledRows]float64
	told        [event.PooledRows]Counts // by Since
}

// policyMaps holds the table in force and the totals of those before it.
type policyMaps struct {
	mu    sync.Mutex
	outer *ebpf.Map
	inner *ebpf.MapSpec
	now   *table
	past  [event.PooledRows]Counts
	ended []Period // generations that ended since the last call of Since
	swaps uint64
}

func newPolicyMaps(spec *ebpf.MapSpec) (*policyMaps, error) {
	outer, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("make map policy: %w", err)
	}
	p := &policyMaps{outer: outer, inner: spec.InnerMap}
	var all [event.PooledRows]float64
	for i := range all {
		all[i] = 1
	}
	if _, err := p.set(all); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *policyMaps) close() error {
	err := p.outer.Close()
	if p.now != nil {
		err = errors.Join(err, p.now.m.Close())
	}
	return err
}

// SetPolicy puts a probability for every pooled row (see event.Row) into force,
// all at once, and gives the generation that it got. Every event is decided and
// counted either under the old table or under the new one.
func (k *Kernel) SetPolicy(probability [event.PooledRows]float64) (uint32, error) {
	return k.policy.set(probability)
}

func (p *policyMaps) set(probability [event.PooledRows]float64) (uint32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := &table{probability: probability, generation: 1}
	if p.now != nil {
		next.generation = p.now.generation + 1
	}
	var err error
	if next.m, err = ebpf.NewMap(p.inner); err != nil {
		return 0, fmt.Errorf("make a policy table: %w", err)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return 0, errors.Join(fmt.Errorf("count the CPUs: %w", err), next.m.Close())
	}
	rows := make([]policyRow, cpus)
	for i, prob := range probability {
		kind, _ := event.RowClass(i)
		if kind.Internal() {
			prob = 1 // attribution stands on these
			next.probability[i] = 1
		}
		for cpu := range rows {
			rows[cpu] = policyRow{
				Threshold:  event.Threshold(prob),
				Random:     rand.Uint64() | 1,
				Generation: next.generation,
			}
		}
		if err := next.m.Put(uint32(i), rows); err != nil {
			return 0, errors.Join(fmt.Errorf("fill a policy table: %w", err), next.m.Close())
		}
	}
	// Returns only when no program uses the table before any more: the kernel
	// waits for that when a map within a map changes.
	if err := p.outer.Put(uint32(0), next.m); err != nil {
		return 0, errors.Join(fmt.Errorf("swap the policy table: %w", err), next.m.Close())
	}
	old := p.now
	p.now = next
	if old == nil {
		return next.generation, nil
	}
	p.swaps++
	final, err := old.read()
	if err != nil {
		return next.generation, errors.Join(fmt.Errorf("close a policy table: %w", err), old.m.Close())
	}
	p.endPeriod(old, final)
	for i := range final {
		p.past[i].add(final[i])
	}
	return next.generation, old.m.Close()
}

// endPeriod keeps what an ended generation counted until Since tells it. When
// nobody asks, the oldest are forgotten; the totals never are.
func (p *policyMaps) endPeriod(t *table, final [event.PooledRows]Counts) {
	const most = 64
	if period := t.since(final); len(period.Rows) > 0 {
		p.ended = append(p.ended, period)
	}
	if len(p.ended) > most {
		p.ended = p.ended[len(p.ended)-most:]
	}
}

// since gives what a table counted since it was last told, and marks it told.
func (t *table) since(now [event.PooledRows]Counts) Period {
	period := Period{Generation: t.generation}
	for i := range now {
		diff := now[i].sub(&t.told[i])
		if diff == (Counts{}) {
			continue
		}
		kind, priority := event.RowClass(i)
		period.Rows = append(period.Rows, Row{Kind: kind, Priority: priority, Probability: t.probability[i], Counts: diff})
	}
	return period
}

// read adds up a table over the CPUs. The kernel copies a row from its start, so
// that an event whose outcome was read has been read as seen, and one that was
// read as lost has been read as offered; what is offered and may yet be lost
// counts as kept.
func (t *table) read() (out [event.PooledRows]Counts, err error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return out, fmt.Errorf("count the CPUs: %w", err)
	}
	var cursor ebpf.MapBatchCursor
	var indexes [event.PooledRows]uint32
	rows := make([]policyRow, len(indexes)*cpus)
	n, err := t.m.BatchLookup(&cursor, indexes[:], rows, nil)
	if errors.Is(err, ebpf.ErrNotSupported) { // before 5.13
		for n = 0; n < len(indexes); n++ {
			var perCPU []policyRow
			indexes[n] = uint32(n)
			if err = t.m.Lookup(uint32(n), &perCPU); err != nil {
				break
			}
			copy(rows[n*cpus:], perCPU)
		}
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // at the end
		return out, fmt.Errorf("read the policy table: %w", err)
	}
	if n != len(indexes) {
		return out, fmt.Errorf("read the policy table: %d of %d rows", n, len(indexes))
	}
	for i, index := range indexes {
		for _, r := range rows[i*cpus : (i+1)*cpus] {
			out[index].add(Counts{
				Kept: r.Offered - r.Lost, SampledOut: r.SampledOut, Filtered: r.Filtered,
				Lost: r.Lost, Bytes: r.Bytes, Seen: r.Seen,
			})
		}
	}
	return out, nil
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
func (k *Kernel) Since() ([]Period, error) {
	p := k.policy
	p.mu.Lock()
	defer p.mu.Unlock()
	now, err := p.now.read()
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
	p := k.policy
	p.mu.Lock()
	defer p.mu.Unlock()
	now, err := p.now.read()
	if err != nil {
		return nil, 0, 0, err
	}
	rows = make([]Row, len(now))
	for i := range now {
		kind, priority := event.RowClass(i)
		rows[i] = Row{Kind: kind, Priority: priority, Probability: p.now.probability[i], Counts: p.past[i]}
		rows[i].add(now[i])
	}
	return rows, p.now.generation, p.swaps, nil
}
