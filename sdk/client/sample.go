package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client/valve"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Priorities of an event, by the word that its attributes "level" or "priority" have.
const (
	debug = iota
	info
	warning
	failure
	critical
	priorities
)

var priorityNames = [priorities]string{"debug", "info", "warning", "error", "critical"}

var words = map[string]int{
	"critical": critical, "crit": critical, "fatal": critical, "panic": critical, "alert": critical,
	"emergency": critical, "emerg": critical,
	"error": failure, "err": failure, "exception": failure, "high": failure,
	"warning": warning, "warn": warning, "medium": warning,
	"info": info, "information": info, "notice": info, "normal": info,
	"debug": debug, "trace": debug, "low": debug,
}

// priorityOf is what attrs say, "level" before "priority"; else info.
func priorityOf(attrs map[string]string) int {
	for _, key := range [...]string{"level", "priority"} {
		word, told := attrs[key]
		if !told {
			continue
		}
		p, known := words[word]
		if !known {
			p, known = words[strings.ToLower(strings.TrimSpace(word))]
		}
		if known {
			return p
		}
	}
	return info
}

const longestName = 64

// nameOf makes of a kind a name as the daemon takes it.
func nameOf(kind string) string {
	plain := func(c byte) bool {
		return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'
	}
	fits := kind != "" && len(kind) <= longestName
	for i := 0; fits && i < len(kind); i++ {
		fits = plain(kind[i])
	}
	if fits {
		return kind
	}
	name := []byte(kind[:min(len(kind), longestName)])
	for i, c := range name {
		if !plain(c) {
			name[i] = '_'
		}
	}
	if len(name) == 0 {
		return otherName
	}
	return string(name)
}

// Decision on one event.
type Decision struct {
	Keep   bool
	Weight float64 // how many events this one stands for, when it is kept
}

// ShouldSample asks the daemon whether to keep an event of this program, and counts it
// there. What it is of (kind) is told to the daemon, and of its attributes the priority
// alone, by the words of "level" or "priority". That takes a call each time, some 100 µs:
// for many events make a LoadManager.
func (c *Client) ShouldSample(ctx context.Context, kind string, attrs map[string]string) (Decision, error) {
	r, err := c.rpc.ShouldSample(ctx, &protov1.ShouldSampleRequest{Name: nameOf(kind), Priority: priorityNames[priorityOf(attrs)]})
	if err != nil {
		return Decision{}, c.explain(err)
	}
	return Decision{Keep: r.GetKeep(), Weight: r.GetWeight()}, nil
}

// LoadManager decides on the events of this program by a table of the daemon's, which
// it fetches each second together with this program's part of the budget, and tells the
// daemon what it has decided. It is safe for use by several goroutines, and must be
// closed, after which what it decides is not counted any more.
//
// While the daemon does not answer the last table goes on, and what was decided is told
// once it answers again. What a program has not told when it dies is in no ledger.
type LoadManager struct {
	client *Client
	stop   context.CancelFunc
	done   chan struct{}

	exchanging sync.Mutex // one exchange at a time
	program    uint64
	sequence   uint64
	sent       *protov1.UserReport // not answered yet; nil: none

	mu                sync.Mutex
	began             time.Time
	valve             valve.Valve
	names             map[string]*[priorities]counts
	rates             map[string]*[priorities]float64 // "": of all others
	recorded, dropped uint64
	stats             LoadStats
	err               error
}

// counts since the last exchange, and the table.
type counts struct {
	probability      float64
	kept, sampledOut uint64
	weight, variance float64
}

const (
	mostNames = 64 // told apart by a LoadManager; others are counted together
	otherName = "other"
	// interval between exchanges, and how long one may take.
	interval = time.Second
	patience = 5 * time.Second
)

// LoadManager makes one. The error says why the daemon could not be asked for the table.
func (c *Client) LoadManager(ctx context.Context) (*LoadManager, error) {
	m := &LoadManager{
		client: c, done: make(chan struct{}), program: rand.Uint64(), began: time.Now(),
		names: map[string]*[priorities]counts{}, rates: map[string]*[priorities]float64{"": {}},
	}
	if err := m.exchange(ctx, false); err != nil {
		return nil, err
	}
	ctx, m.stop = context.WithCancel(context.Background())
	go func() {
		defer close(m.done)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			one, cancel := context.WithTimeout(ctx, patience)
			err := m.exchange(one, false)
			cancel()
			m.mu.Lock()
			m.err = err
			m.mu.Unlock()
		}
	}()
	return m, nil
}

// ShouldSample tells whether to keep an event. Its priority is by the word of the
// attribute "level" or else "priority": critical events are always kept, as far as the
// reserve of the budget goes. It asks nobody, and takes less than a microsecond.
func (m *LoadManager) ShouldSample(kind string, attrs map[string]string) bool {
	return m.Sample(kind, attrs).Keep
}

// Sample is ShouldSample with the weight.
func (m *LoadManager) Sample(kind string, attrs map[string]string) Decision {
	return m.decide(nameOf(kind), priorityOf(attrs), rand.Float64())
}

func (m *LoadManager) decide(name string, priority int, random float64) Decision {
	m.mu.Lock()
	defer m.mu.Unlock()
	rows := m.names[name]
	if rows == nil {
		rows = m.meet(name)
	}
	c := &rows[priority]
	share := m.valve.Share(int64(time.Since(m.began)), c.probability, priority == critical)
	if random >= share {
		c.sampledOut++
		return Decision{}
	}
	w := 1 / share
	c.kept++
	c.weight += w
	c.variance += w * (w - 1)
	return Decision{Keep: true, Weight: w}
}

// meet makes the rows of a new name, or gives those for which there is no room. With mu.
func (m *LoadManager) meet(name string) *[priorities]counts {
	if len(m.names) >= mostNames {
		name = otherName
		if rows := m.names[name]; rows != nil {
			return rows
		}
	}
	rows := &[priorities]counts{}
	m.names[name] = rows
	m.rate(name, rows)
	return rows
}

func (m *LoadManager) rate(name string, rows *[priorities]counts) {
	rates := m.rates[name]
	if rates == nil {
		rates = m.rates[""]
	}
	for p := range rows {
		rows[p].probability = rates[p]
	}
}

// RecordEvent counts an event that this program has processed.
func (m *LoadManager) RecordEvent() {
	m.mu.Lock()
	m.recorded++
	m.mu.Unlock()
}

// RecordDrop counts an event that this program has dropped.
func (m *LoadManager) RecordDrop() {
	m.mu.Lock()
	m.dropped++
	m.mu.Unlock()
}

// GetStats gives the daemon's load, as of the last exchange.
func (m *LoadManager) GetStats() LoadStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats
}

// Err says why the last exchange with the daemon failed, nil when it did not.
func (m *LoadManager) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Flush tells the daemon now what was decided, and fetches the table.
func (m *LoadManager) Flush(ctx context.Context) error { return m.exchange(ctx, false) }

// Close tells the daemon the rest. The error says that it could not be told.
func (m *LoadManager) Close() error {
	m.stop()
	<-m.done
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return m.exchange(ctx, true)
}

// exchange tells what was not told yet. What the daemon may have heard without an answer
// goes first, as it was, so that it is not counted twice.
func (m *LoadManager) exchange(ctx context.Context, last bool) error {
	m.exchanging.Lock()
	defer m.exchanging.Unlock()
	if m.sent != nil {
		if err := m.send(ctx); err != nil {
			return err
		}
	}
	m.sequence++
	m.sent = m.report()
	m.sent.Last = last
	return m.send(ctx)
}

func (m *LoadManager) send(ctx context.Context) error {
	t, err := m.client.rpc.ExchangeUserEvents(ctx, m.sent)
	if err != nil {
		return fmt.Errorf("exchange counts with the daemon: %w", m.client.explain(err))
	}
	if !m.sent.Last {
		m.take(t)
	}
	m.sent = nil
	return nil
}

// report takes out what was counted.
func (m *LoadManager) report() *protov1.UserReport {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &protov1.UserReport{Program: m.program, Sequence: m.sequence, Recorded: m.recorded, Dropped: m.dropped}
	m.recorded, m.dropped = 0, 0
	for name, rows := range m.names {
		for p := range rows {
			c := &rows[p]
			if c.kept+c.sampledOut == 0 {
				continue
			}
			r.Counts = append(r.Counts, &protov1.UserCounts{
				Name: name, Priority: priorityNames[p], Kept: c.kept, SampledOut: c.sampledOut, Weight: c.weight, Variance: c.variance,
			})
			*c = counts{probability: c.probability}
		}
	}
	return r
}

// take takes a table over.
func (m *LoadManager) take(t *protov1.UserTable) {
	rates := map[string]*[priorities]float64{"": {}}
	for _, r := range t.GetRules() {
		p, ok := words[r.GetPriority()]
		if !ok {
			continue
		}
		of := rates[r.GetName()]
		if of == nil {
			of = &[priorities]float64{}
			rates[r.GetName()] = of
		}
		of[p] = r.GetProbability()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rates = rates
	m.valve.Set(t.GetEventsPerSecond(), t.GetReserve())
	for name, rows := range m.names {
		m.rate(name, rows)
	}
	m.stats = loadStats(t.GetLoad())
}
