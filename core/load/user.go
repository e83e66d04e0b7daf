package load

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/client/valve"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Bounds of what programs may ask for.
const (
	mostNames     = 64  // of events; others are counted together
	mostPrograms  = 256 // that decide by themselves at a time
	mostUserRules = 256 // of a policy, which are held against every name
	longestName   = 64
	// userShare is the part of the budget in force that events of programs have for
	// themselves, beside those of the kernel.
	userShare = 0.1
	// absence of a program's reports, after which its part is the others', ...
	absence = 30 * time.Second
	// ... and after which it is forgotten: a report that it sends again would count twice.
	oblivion = 10 * time.Minute
)

// UserPrefix of the kinds that the events of programs have, in output and in policies.
const UserPrefix = "user."

// otherName stands for all names beyond the first mostNames.
const otherName = "other"

var (
	errName     = fmt.Errorf("an event's name is of letters, digits, %q, %q and %q, and of %d at most", "_", "-", ".", longestName)
	errPriority = errors.New("no such priority: there are debug, info, warning, error and critical")
	errPrograms = fmt.Errorf("there are %d programs already that decide by themselves", mostPrograms)
)

// UserRow is the ledger of one name and priority.
type UserRow struct {
	Name        string
	Priority    event.Priority
	Probability float64 // by the policy, before the budget
	Sum                 // of the kept
	SampledOut  uint64
}

// UserEvents decides about the events of programs that ask: one by one, or by handing a
// program a table and a part of the budget, and taking its counts. It owns their ledger.
// Safe for use by several goroutines.
type UserEvents struct {
	mu       sync.Mutex
	now      func() time.Time
	policy   userPolicy
	relief   [event.Priorities]float64
	budget   float64 // of all programs together; 0: no bound
	reserve  float64
	names    map[string]*[event.Priorities]UserRow
	programs map[uint64]*program
	single   program // stands for all that ask for each event
	valve    valve.Valve

	recorded, dropped uint64
}

// program that decides by itself, by its part of the budget.
type program struct {
	heard  time.Time
	told   uint64  // sequence of its last report
	demand float64 // events/s
	asked  uint64  // since heard; of the single ones
}

func newUserEvents(now func() time.Time) *UserEvents {
	u := &UserEvents{
		now: now, policy: userPolicy{rest: builtin}, names: map[string]*[event.Priorities]UserRow{}, programs: map[uint64]*program{},
	}
	for p := range u.relief {
		u.relief[p] = 1
	}
	return u
}

// userPolicy is the part of a policy that is about events of programs.
type userPolicy struct {
	rest  float64
	rules []userRule
}

type userRule struct {
	kind, priority string // "": any
	probability    float64
}

// userPolicyOf takes out of a checked policy what may match an event of a program. They
// are in no group.
func userPolicyOf(p *protov1.Policy) userPolicy {
	out := userPolicy{rest: min(max(p.GetDefaultProbability(), 0), 1)}
	for _, r := range p.GetRules() {
		m := r.GetMatch()
		if m.GetGroup() != "" || m.Kind != nil && !strings.HasPrefix(m.GetKind(), UserPrefix) || m.Priority != nil && m.GetPriority() == "" {
			continue
		}
		if len(out.rules) == mostUserRules {
			break
		}
		out.rules = append(out.rules, userRule{m.GetKind(), m.GetPriority(), min(max(r.GetProbability(), 0), 1)})
	}
	return out
}

// of gives the probability by the first rule that matches; "user.*" matches every name.
func (p *userPolicy) of(kind string, priority event.Priority) float64 {
	for _, r := range p.rules {
		if (r.kind == "" || r.kind == kind || r.kind == UserPrefix+"*") && (r.priority == "" || r.priority == priority.String()) {
			return r.probability
		}
	}
	return p.rest
}

// enforce takes a policy, and the budget of which programs have their share.
func (u *UserEvents) enforce(p userPolicy, f monitor.Factors, b kernel.Budget) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.policy, u.relief = p, f[monitor.Other]
	u.budget, u.reserve = b.EventsPerSecond*userShare, b.Reserve
	if u.reserve <= 0 {
		u.reserve = kernel.DefaultReserve
	}
	for name, rows := range u.names {
		u.rate(name, rows)
	}
}

// probability before the budget. With mu.
func (u *UserEvents) probability(name string, p event.Priority) float64 {
	if p == event.Critical {
		return 1
	}
	return u.policy.of(UserPrefix+name, p) * u.relief[p]
}

func (u *UserEvents) rate(name string, rows *[event.Priorities]UserRow) {
	for p := range rows {
		rows[p].Probability = u.probability(name, event.Priority(p))
	}
}

// row of a name, or of those for which there is no room. With mu.
func (u *UserEvents) row(name string, p event.Priority) *UserRow {
	rows := u.names[name]
	if rows == nil && len(u.names) >= mostNames {
		name = otherName
		rows = u.names[name]
	}
	if rows == nil {
		rows = &[event.Priorities]UserRow{}
		for p := range rows {
			rows[p].Name, rows[p].Priority = name, event.Priority(p)
		}
		u.rate(name, rows)
		u.names[name] = rows
	}
	return &rows[p]
}

// Decide decides on one event, and counts it. The error says what is wrong with the
// question.
func (u *UserEvents) Decide(name, priority string) (keep bool, weight float64, err error) {
	p, ok := event.ParsePriority(priority)
	switch {
	case !validName(name):
		return false, 0, errName
	case !ok:
		return false, 0, errPriority
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	u.single.asked++
	if passed := now.Sub(u.single.heard); passed >= time.Second {
		u.single.hear(now, u.single.asked)
		u.single.asked = 0
		u.valve.Set(u.part(now, &u.single), u.reserve)
	}
	row := u.row(name, p)
	share := u.valve.Share(now.UnixNano(), row.Probability, p == event.Critical)
	if rand.Float64() >= share {
		row.SampledOut++
		return false, 0, nil
	}
	row.add(1 / share)
	return true, 1 / share, nil
}

// hear takes how many events there were since it was last heard.
func (p *program) hear(now time.Time, events uint64) {
	if passed := now.Sub(p.heard).Seconds(); passed > 0 && !p.heard.IsZero() {
		const weight = 0.5 // of what is new
		p.demand += weight * (float64(events)/passed - p.demand)
	}
	p.heard = now
}

// part of the budget that a program has: of a half as much as each, of the other half
// as its demand is. Who did not ask lately has none. With mu.
func (u *UserEvents) part(now time.Time, of *program) float64 {
	var programs, demand float64
	count := func(p *program) {
		if now.Sub(p.heard) < absence {
			programs++
			demand += p.demand
		}
	}
	count(&u.single)
	for _, p := range u.programs {
		count(p)
	}
	switch {
	case programs <= 1:
		return u.budget
	case demand <= 0:
		return u.budget / programs
	}
	return u.budget * (0.5/programs + 0.5*of.demand/demand)
}

// Exchange takes what a program has decided by itself, and gives by what it goes on. A
// report that comes again is not counted again.
func (u *UserEvents) Exchange(r *protov1.UserReport) (*protov1.UserTable, error) {
	for _, c := range r.GetCounts() {
		_, ok := event.ParsePriority(c.GetPriority())
		switch {
		case !validName(c.GetName()):
			return nil, errName
		case !ok:
			return nil, errPriority
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	p := u.programs[r.GetProgram()]
	if p == nil {
		u.forget(now, oblivion)
		if len(u.programs) >= mostPrograms {
			u.forget(now, absence)
		}
		if len(u.programs) >= mostPrograms {
			return nil, errPrograms
		}
		p = &program{}
		u.programs[r.GetProgram()] = p
	}
	if r.GetSequence() != p.told {
		u.count(p, now, r)
	} else {
		p.heard = now
	}
	if r.GetLast() {
		delete(u.programs, r.GetProgram())
		return &protov1.UserTable{}, nil
	}
	return u.table(now, p), nil
}

// forget those that have not reported for so long. With mu.
func (u *UserEvents) forget(now time.Time, after time.Duration) {
	for id, p := range u.programs {
		if now.Sub(p.heard) >= after {
			delete(u.programs, id)
		}
	}
}

// count charges a report. With mu.
func (u *UserEvents) count(p *program, now time.Time, r *protov1.UserReport) {
	p.told = r.GetSequence()
	var events uint64
	for _, c := range r.GetCounts() {
		priority, _ := event.ParsePriority(c.GetPriority())
		row := u.row(c.GetName(), priority)
		row.Events += c.GetKept()
		row.SampledOut += c.GetSampledOut()
		row.Weight += finite(c.GetWeight())
		row.Variance += finite(c.GetVariance())
		events += c.GetKept() + c.GetSampledOut()
	}
	u.recorded += r.GetRecorded()
	u.dropped += r.GetDropped()
	p.hear(now, events)
}

// finite is what may be added to a sum.
func finite(v float64) float64 {
	if !(v > 0) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

// table for a program. With mu.
func (u *UserEvents) table(now time.Time, p *program) *protov1.UserTable {
	t := &protov1.UserTable{EventsPerSecond: u.part(now, p), Reserve: u.reserve}
	add := func(name, of string, p event.Priority) {
		t.Rules = append(t.Rules, &protov1.UserRule{Name: name, Priority: p.String(), Probability: u.probability(of, p)})
	}
	for p := range event.Priorities {
		add("", otherName, p)
	}
	// Those of which a rule speaks, whether they were met yet or not.
	named := map[string]bool{}
	for _, r := range u.policy.rules {
		name := strings.TrimPrefix(r.kind, UserPrefix)
		if r.kind == "" || named[name] || !validName(name) || len(named) == mostNames {
			continue
		}
		named[name] = true
		for p := range event.Priorities {
			add(name, name, p)
		}
	}
	return t
}

// Rows that have seen something, in the order of names and priorities.
func (u *UserEvents) Rows() (out []UserRow) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, rows := range u.names {
		for _, r := range rows {
			if r.Events+r.SampledOut > 0 {
				out = append(out, r)
			}
		}
	}
	slices.SortFunc(out, func(a, b UserRow) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return int(a.Priority) - int(b.Priority)
	})
	return out
}

// Stats of the programs.
func (u *UserEvents) Stats() *protov1.UserStats {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := &protov1.UserStats{EventsPerSecond: u.budget, Recorded: u.recorded, Dropped: u.dropped}
	for _, p := range u.programs {
		if u.now().Sub(p.heard) < absence {
			out.Programs++
		}
	}
	return out
}

func validName(name string) bool {
	if name == "" || len(name) > longestName {
		return false
	}
	for _, c := range []byte(name) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// User are the events of programs that ask.
func (g *Governor) User() *UserEvents { return g.user }

// tellUser puts into force for programs what is in force for the kernel. With mu.
func (g *Governor) tellUser() {
	g.user.enforce(g.userPolicy, g.relief, kernel.Budget{EventsPerSecond: g.now.Budget, Reserve: g.options.Budget.Reserve})
}
