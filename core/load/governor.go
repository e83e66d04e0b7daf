// Package load stands between the sampler and the kernel: it makes the reports
// that a sampler hears, and clamps what it answers into the table by which the
// kernel decides.
//
// It owns the policy in force and the time until which it holds. It never trusts
// a sampler: a policy that is refused changes nothing, and one that is not renewed
// ends, after which the built-in row applies.
package load

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	defaultTTL = 10 * time.Second
	minTTL     = time.Second
	maxTTL     = 5 * time.Minute

	maxRules = 8192

	// builtin is the row that applies without a sampler: everything is kept.
	builtin = 1.0
)

// Kernel is what the governor wants of the kernel side.
type Kernel interface {
	Since() ([]kernel.Period, error)
	SetPolicy([event.PooledRows]float64) (generation uint32, err error)
}

// Queue is a queue whose depth is reported.
type Queue struct {
	Name            string
	Depth, Capacity uint64
}

// Options of New.
type Options struct {
	Kernel  Kernel
	Sampler string         // its name, until SetSampler
	Queues  func() []Queue // nil: none
	Log     *slog.Logger
	Now     func() time.Time // nil: time.Now
}

// Policy is what is in force.
type Policy struct {
	Generation uint32
	Source     string // the sampler's name, or "default"
	Reason     string
	Refused    uint64    // policies, in all
	Expires    time.Time // zero: never
}

// accepted is a policy that a sampler may keep.
type accepted struct {
	table  [event.PooledRows]float64
	reason string
}

// Governor is safe for use by several goroutines.
type Governor struct {
	options Options
	host    *host

	mu       sync.Mutex
	sampler  string // its name
	now      Policy
	table    [event.PooledRows]float64
	ttl      time.Duration
	accepted *accepted               // the sampler's last policy; nil: none yet
	results  []*protov1.PolicyResult // since the last report
	reported time.Time
	changed  chan struct{} // the policy's end has changed
}

// New makes a governor; the built-in row is in force.
func New(o Options) *Governor {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Queues == nil {
		o.Queues = func() []Queue { return nil }
	}
	g := &Governor{
		options: o, sampler: o.Sampler, host: newHost(), reported: o.Now(), changed: make(chan struct{}, 1),
		now: Policy{Generation: 1, Source: "default", Reason: "no sampler has answered yet"},
	}
	for i := range g.table {
		g.table[i] = builtin
	}
	return g
}

// SetSampler says whose answers follow. The policy in force goes on until they
// change it or its time is up.
func (g *Governor) SetSampler(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sampler = name
	g.accepted, g.results = nil, nil // what another sampler said is not this one's to keep
}

// Policy in force.
func (g *Governor) Policy() Policy {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

// Run ends a policy whose time is up, until ctx is done.
func (g *Governor) Run(ctx context.Context) {
	for {
		g.mu.Lock()
		expires := g.now.Expires
		g.mu.Unlock()
		var due <-chan time.Time
		var timer *time.Timer
		if !expires.IsZero() {
			timer = time.NewTimer(expires.Sub(g.options.Now()))
			due = timer.C
		}
		select {
		case <-ctx.Done():
		case <-g.changed:
		case <-due:
			g.expire()
		}
		if timer != nil {
			timer.Stop()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

func (g *Governor) expire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now.Expires.IsZero() || g.options.Now().Before(g.now.Expires) {
		return
	}
	var table [event.PooledRows]float64
	for i := range table {
		table[i] = builtin
	}
	reason := fmt.Sprintf("sampler %q has not answered for %s: every event is kept", g.sampler, g.ttl)
	g.options.Log.Warn(reason)
	if err := g.put(table, Policy{Source: "default", Reason: reason}); err != nil {
		g.options.Log.Error("put the built-in policy into force", "error", err)
		g.now.Expires = g.options.Now().Add(minTTL) // try again
	}
}

// put compiles a table into the kernel, unless it is the one in force. With mu.
func (g *Governor) put(table [event.PooledRows]float64, p Policy) error {
	p.Generation, p.Refused = g.now.Generation, g.now.Refused
	if table != g.table {
		generation, err := g.options.Kernel.SetPolicy(table)
		if err != nil {
			return err
		}
		p.Generation = generation
		g.table = table
	}
	g.now = p
	select {
	case g.changed <- struct{}{}:
	default:
	}
	return nil
}

// Report makes the next report: what was decided since the last one. Its sequence
// and merged are the caller's.
func (g *Governor) Report() *protov1.Report {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.options.Now()
	r := &protov1.Report{
		TimeUnixNano: now.UnixNano(),
		IntervalNano: int64(now.Sub(g.reported)), // of the monotonic clock
		Generation:   g.now.Generation,
		Policies:     g.results,
	}
	g.reported, g.results = now, nil
	periods, err := g.options.Kernel.Since()
	if err != nil {
		// The next report holds what this one lacks.
		g.options.Log.Error("read the kernel's counts for the sampler", "error", err)
	}
	for _, p := range periods {
		for _, row := range p.Rows {
			r.Classes = append(r.Classes, &protov1.ClassLoad{
				Class: &protov1.Class{Kind: row.Kind.String(), Priority: row.Priority.String()},
				Seen:  row.Seen, Kept: row.Kept, SampledOut: row.SampledOut,
				Filtered: row.Filtered, Lost: row.Lost, Bytes: row.Bytes,
				Probability: row.Probability, Generation: p.Generation,
			})
		}
	}
	r.Host = g.host.load(now)
	for _, q := range g.options.Queues() {
		r.Queues = append(r.Queues, &protov1.QueueDepth{Queue: q.Name, Depth: q.Depth, Capacity: q.Capacity})
	}
	return r
}

// Answer takes a sampler's answer to a report.
func (g *Governor) Answer(a *protov1.Answer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch answer := a.GetAnswer().(type) {
	case *protov1.Answer_Policy:
		result := &protov1.PolicyResult{PolicySequence: answer.Policy.GetSequence()}
		if err := g.accept(answer.Policy, result); err != nil {
			g.refuse(err)
			result.Reason = err.Error()
		} else {
			result.Accepted = true
			result.Generation = g.now.Generation
		}
		g.results = append(g.results, result)
	case *protov1.Answer_Keep:
		if g.accepted == nil {
			g.refuse(errNothingToKeep)
			return
		}
		if err := g.enforce(); err != nil {
			g.options.Log.Error("renew the policy", "error", err)
		}
	default:
		g.refuse(errNoAnswer)
	}
}

func (g *Governor) refuse(err error) {
	g.now.Refused++
	g.options.Log.Warn("refuse the policy of a sampler", "sampler", g.sampler, "reason", err)
}

func (g *Governor) accept(p *protov1.Policy, result *protov1.PolicyResult) error {
	table, clamped, err := compile(p)
	if err != nil {
		return err
	}
	if clamped > 0 {
		result.Reason = fmt.Sprintf("%d probabilities were not between 0 and 1", clamped)
	}
	ttl := time.Duration(p.GetTtlNano())
	if ttl == 0 {
		ttl = defaultTTL
	}
	ttl = min(max(ttl, minTTL), maxTTL)
	g.ttl = ttl
	g.accepted = &accepted{table: table, reason: p.GetReason()}
	return g.enforce()
}

// enforce puts the accepted policy into force, or keeps it there, for its TTL.
func (g *Governor) enforce() error {
	return g.put(g.accepted.table, Policy{
		Source: g.sampler, Reason: g.accepted.reason, Expires: g.options.Now().Add(g.ttl),
	})
}

// Why policies are refused.
var (
	errNoAnswer      = errors.New("the answer has neither a policy nor keep")
	errNothingToKeep = errors.New("there is no policy of this sampler to keep")
	errNoDefault     = errors.New("default_probability is not set")
	errNoMatch       = errors.New("a rule has no match: to match every class, set an empty one")
	errProbability   = errors.New("a probability is not set or not a number")
	errRules         = fmt.Errorf("more than %d rules", maxRules)
)

// compile makes a table of a policy: for each row the first rule that matches.
// What the core always keeps is not the policy's to decide.
func compile(p *protov1.Policy) (table [event.PooledRows]float64, clamped int, err error) {
	if p.DefaultProbability == nil {
		return table, 0, errNoDefault
	}
	if len(p.GetRules()) > maxRules {
		return table, 0, errRules
	}
	clamp := func(v float64) float64 {
		if v < 0 || v > 1 {
			clamped++
		}
		return min(max(v, 0), 1)
	}
	rest := p.GetDefaultProbability()
	if math.IsNaN(rest) || math.IsInf(rest, 0) {
		return table, 0, errProbability
	}
	rest = clamp(rest)
	for i := range table {
		table[i] = rest
	}
	var decided [event.PooledRows]bool
	for _, r := range p.GetRules() {
		switch {
		case r.GetMatch() == nil:
			return table, 0, errNoMatch
		case r.Probability == nil || math.IsNaN(r.GetProbability()) || math.IsInf(r.GetProbability(), 0):
			return table, 0, errProbability
		}
		value := clamp(r.GetProbability())
		for i := range table {
			if !decided[i] && matches(r.GetMatch(), i) {
				table[i], decided[i] = value, true
			}
		}
	}
	for i := range table {
		if kind, priority := event.RowClass(i); kind.Internal() || priority == event.Critical {
			table[i] = 1
		}
	}
	return table, clamped, nil
}

func matches(m *protov1.ClassPattern, row int) bool {
	kind, priority := event.RowClass(row)
	return (m.Kind == nil || m.GetKind() == kind.String()) &&
		(m.Priority == nil || m.GetPriority() == priority.String()) &&
		m.GetGroup() == "" // the pooled rows, which are all there are
}
