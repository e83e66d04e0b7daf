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
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	defaultTTL = 10 * time.Second
	minTTL     = time.Second
	maxTTL     = 5 * time.Minute

	// builtin is the row that applies without a sampler: everything is kept, as far
	// as the budget goes.
	builtin = 1.0

	// builtinSource is whose it is.
	builtinSource = "default"
)

// Kernel is what the governor wants of the kernel side.
type Kernel interface {
	Since() ([]kernel.Period, error)
	SetPolicy(kernel.Policy) (generation uint32, err error)
	SetBudget(kernel.Budget)
	SetSharers(cgroups int)
	// SetGroup gives kernel.ErrNoCgroup for a cgroup that is gone.
	SetGroup(cgroup uint64, group uint32) error
	Capacity() (rows, groups int)
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
	Budget  kernel.Budget  // which no sampler exceeds
	Limits  Limits         // of the daemon itself
	Tally   *Tally         // of the kept events; nil: none, and groups have no rows
	Queues  func() []Queue // nil: none
	// Monitor tells how busy the machine is, and by how much less is kept for it;
	// nil: one of this host, by the defaults.
	Monitor *monitor.Monitor
	Ring    func() float64 // the share in use of the fullest ring; nil: 0
	// Filters puts the filters of a policy into force, in place of those of the one
	// before; nil ends them. The error says what is wrong with them, and then those
	// before go on. Called one at a time. Nil itself: nothing filters, and policies hold
	// without theirs.
	Filters func([]*protov1.Filter) error
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
	Promoted   int       // classes of groups that have rows of their own
	Relief     []string  // why less is kept than the sampler says
	Budget     float64   // events/s; 0: none
}

// accepted is a policy that a sampler may keep.
type accepted struct {
	*plan
	reason  string
	user    userPolicy
	filters []*protov1.Filter
}

// Governor is safe for use by several goroutines.
type Governor struct {
	options Options
	user    *UserEvents
	truth   truth

	mu       sync.Mutex
	sampler  string // its name
	now      Policy
	plan     *plan           // in force
	relief   monitor.Factors // in force
	throttle throttle        // of the budget, so that the daemon stays within its limits

	userPolicy userPolicy        // in force
	filters    []*protov1.Filter // in force
	groups     *groups
	ttl        time.Duration
	accepted   *accepted               // the sampler's last policy; nil: none yet
	results    []*protov1.PolicyResult // since the last report
	reported   time.Time
	changed    chan struct{} // the policy's end has changed
}

// New makes a governor; the built-in row is in force.
func New(o Options) *Governor {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Queues == nil {
		o.Queues = func() []Queue { return nil }
	}
	if o.Tally == nil {
		o.Tally = NewTally()
	}
	if o.Ring == nil {
		o.Ring = func() float64 { return 0 }
	}
	if o.Monitor == nil {
		o.Monitor = monitor.New(monitor.Options{})
	}
	g := &Governor{
		options: o, sampler: o.Sampler, reported: o.Now(), changed: make(chan struct{}, 1),
		now:  Policy{Generation: 1, Source: builtinSource, Reason: "no sampler has answered yet", Budget: o.Budget.EventsPerSecond},
		plan: keepAll(), relief: monitor.None(), throttle: newThrottle(o.Limits), groups: newGroups(o.Kernel, o.Log),
		user: newUserEvents(o.Now), userPolicy: userPolicy{rest: builtin},
	}
	o.Kernel.SetBudget(o.Budget)
	g.tellUser()
	return g
}

// keepAll is the built-in policy.
func keepAll() *plan {
	p := &plan{}
	for i := range p.pooled {
		p.pooled[i].Probability = builtin
	}
	return p
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

// Run ends a policy whose time is up, and watches the ledger of a kernel that has one,
// until ctx is done.
func (g *Governor) Run(ctx context.Context) {
	if l, ok := g.options.Kernel.(ledger); ok {
		watched := make(chan struct{})
		go func() { defer close(watched); g.watch(ctx, l) }()
		defer func() { <-watched }()
	}
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
			g.Expire()
		}
		if timer != nil {
			timer.Stop()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// Expire ends a policy whose time is up. Run calls it in time.
func (g *Governor) Expire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now.Expires.IsZero() || g.options.Now().Before(g.now.Expires) {
		return
	}
	reason := fmt.Sprintf("sampler %q has not answered for %s: every event is kept that the budget has room for", g.sampler, g.ttl)
	g.options.Log.Warn(reason)
	if err := g.put(&accepted{plan: keepAll(), user: userPolicy{rest: builtin}}, Policy{Source: builtinSource, Reason: reason}); err != nil {
		g.options.Log.Error("put the built-in policy into force", "error", err)
		g.now.Expires = g.options.Now().Add(minTTL) // try again
	}
}

// put puts a policy into force. With mu.
func (g *Governor) put(next *accepted, p Policy) error {
	filters := g.filters
	if err := g.filter(next.filters); err != nil {
		return err
	}
	p.Generation, p.Refused = g.now.Generation, g.now.Refused
	p.Promoted, p.Budget, p.Relief = g.now.Promoted, g.now.Budget, g.now.Relief
	before := g.now
	g.now = p
	if err := g.compile(next.plan); err != nil {
		g.now = before
		return errors.Join(err, g.filter(filters))
	}
	g.userPolicy = next.user
	g.tellUser()
	select {
	case g.changed <- struct{}{}:
	default:
	}
	return nil
}

// filter puts filters into force, unless they are. With mu.
func (g *Governor) filter(next []*protov1.Filter) error {
	same := slices.EqualFunc(g.filters, next, func(a, b *protov1.Filter) bool { return proto.Equal(a, b) })
	if g.options.Filters == nil || same {
		return nil
	}
	if err := g.options.Filters(next); err != nil {
		return err
	}
	g.filters = next
	return nil
}

// compile makes the kernel's table of a plan and of what the host's load leaves room
// for, unless it is the one in force. The built-in plan is never relieved. With mu.
func (g *Governor) compile(next *plan) error {
	relief, reasons := monitor.None(), []string(nil)
	if seen := g.options.Monitor.Last(); g.now.Source != builtinSource && !seen.Time.IsZero() {
		relief, reasons = seen.Relief.Factors, seen.Relief.Reasons
	}
	g.now.Relief = append(slices.Clip(reasons), g.throttle.reasons()...)
	if next.equal(g.plan) && relief == g.relief {
		return nil
	}
	policy, used := g.numbered(next, monitor.Relief{Factors: relief})
	generation, err := g.options.Kernel.SetPolicy(policy)
	if err != nil {
		return err
	}
	g.groups.retain(used)
	g.groups.join()
	g.now.Generation, g.now.Promoted = generation, len(policy.Promoted)
	g.plan, g.relief = next, relief
	g.bound()
	return nil
}

// bound puts the budget into force: the sampler's, if it asks for less, or what the
// daemon's limits leave of its own. With mu.
func (g *Governor) bound() {
	b := g.options.Budget
	b.EventsPerSecond *= g.throttle.factor
	if g.plan.budget > 0 && (b.EventsPerSecond == 0 || g.plan.budget < b.EventsPerSecond) {
		b.EventsPerSecond = g.plan.budget
	}
	b.Raise = g.plan.fill && g.relief == monitor.None()
	g.now.Budget = b.EventsPerSecond
	g.options.Kernel.SetBudget(b)
}

// SetBudget holds at once; the policy in force goes on within it.
func (g *Governor) SetBudget(b kernel.Budget, l Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.options.Budget = b
	if l != g.throttle.limits {
		g.throttle = newThrottle(l)
	}
	g.bound()
	g.tellUser()
}

// numbered gives a plan as the kernel takes it, and the groups that it uses. Groups of
// which no event was kept lately, and those for which there is no room, stay pooled.
func (g *Governor) numbered(next *plan, relief monitor.Relief) (kernel.Policy, map[string]bool) {
	policy := kernel.Policy{Pooled: next.pooled, Promoted: make(map[kernel.Class]kernel.Rule, len(next.promoted))}
	for row := range policy.Pooled {
		policy.Pooled[row].Probability *= relief.Of(event.RowClass(row))
	}
	used := map[string]bool{}
	for class := range next.promoted {
		used[class.group] = true
	}
	g.groups.admit(used)
	for class, rule := range next.promoted {
		n := g.groups.numbers[class.group]
		if n == 0 {
			continue
		}
		kind, priority := event.RowClass(class.row)
		rule.Probability *= relief.Of(kind, priority)
		policy.Promoted[kernel.Class{Kind: kind, Priority: priority, Group: n}] = rule
	}
	return policy, used
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
				Class: &protov1.Class{Kind: row.Kind.String(), Priority: row.Priority.String(), Group: g.groups.names[row.Group]},
				Seen:  row.Seen, Kept: row.Kept, SampledOut: row.SampledOut,
				Filtered: row.Filtered, Lost: row.Lost, Bytes: row.Bytes,
				Probability: row.Probability, Generation: p.Generation,
			})
		}
	}
	g.tallied(r)
	rows, _ := g.options.Kernel.Capacity()
	r.RowCapacity, r.BudgetEventsPerSecond = uint32(rows), g.options.Budget.EventsPerSecond*g.throttle.factor
	r.Queues = depths(g.options.Queues())
	r.Host = g.observe(now, r).Host
	return r
}

// observe takes what a report tells of the events into account. With mu.
func (g *Governor) observe(now time.Time, r *protov1.Report) monitor.Observation {
	f := monitor.Flow{Ring: g.options.Ring(), Queues: r.GetQueues()}
	if seconds := float64(r.GetIntervalNano()) / 1e9; seconds > 0 {
		for _, c := range r.GetClasses() {
			f.Seen += float64(c.GetSeen()) / seconds
			f.Kept += float64(c.GetKept()) / seconds
		}
	}
	return g.relieve(now, f)
}

// relieve reads how busy the host is, and makes room. With mu.
func (g *Governor) relieve(now time.Time, f monitor.Flow) monitor.Observation {
	o := g.options.Monitor.Observe(now, f)
	if g.throttle.observe(now, o.Host) {
		g.bound()
	}
	if err := g.compile(g.plan); err != nil {
		g.options.Log.Error("keep less for the host's load", "error", err)
	}
	g.tellUser()
	return o
}

// tallied adds what is estimated of classes that have no row of their own, and puts
// new cgroups of groups that have one into them. With mu.
func (g *Governor) tallied(r *protov1.Report) {
	// What has a row is counted there.
	classes, cgroups, busy := g.options.Tally.take(func(c groupClass) bool {
		_, own := g.plan.promoted[c]
		return own && g.groups.numbers[c.group] != 0
	})
	for _, c := range classes {
		if len(r.PooledClasses) == mostTold {
			break
		}
		kind, priority := event.RowClass(c.row)
		r.PooledClasses = append(r.PooledClasses, &protov1.ClassLoad{
			Class: &protov1.Class{Kind: kind.String(), Priority: priority.String(), Group: c.group},
			Seen:  uint64(math.Round(c.seen)), Kept: c.kept,
		})
	}
	g.options.Kernel.SetSharers(busy)
	g.groups.reported(cgroups)
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
	next, err := compile(p)
	if err != nil {
		return err
	}
	if next.clamped > 0 {
		result.Reason = fmt.Sprintf("%d probabilities were above 1", next.clamped)
	}
	ttl := time.Duration(p.GetTtlNano())
	if ttl == 0 {
		ttl = defaultTTL
	}
	ttl = min(max(ttl, minTTL), maxTTL)
	if len(p.GetFilters()) > 0 && g.options.Filters == nil {
		result.Reason = joined(result.Reason, "nothing filters here: its filters are left out")
	}
	before, was := g.accepted, g.ttl
	g.accepted, g.ttl = &accepted{plan: next, reason: p.GetReason(), user: userPolicyOf(p), filters: p.GetFilters()}, ttl
	if err := g.enforce(); err != nil {
		g.accepted, g.ttl = before, was // which may still be kept
		return err
	}
	return nil
}

// joined are two sentences of which one may be "".
func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// enforce puts the accepted policy into force, or keeps it there, for its TTL.
func (g *Governor) enforce() error {
	return g.put(g.accepted, Policy{
		Source: g.sampler, Reason: g.accepted.reason, Expires: g.options.Now().Add(g.ttl),
	})
}
