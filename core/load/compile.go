package load

import (
	"errors"
	"fmt"
	"maps"
	"math"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	maxRules = 8192
	// maxPatterns is how many of them may leave out the kind, the priority or the
	// group: each of those is held against every class.
	maxPatterns = 256
	// maxFilters is how many a sampler may have, if there is room.
	maxFilters = 1024
)

// Why policies are refused.
var (
	errNoAnswer      = errors.New("the answer has neither a policy nor keep")
	errNothingToKeep = errors.New("there is no policy of this sampler to keep")
	errNoDefault     = errors.New("default_probability is not set")
	errNoMatch       = errors.New("a rule has no match: to match every class, set an empty one")
	errProbability   = errors.New("a probability is not set, not a number or negative")
	errExpected      = errors.New("an expected_events_per_second is not a number")
	errBudget        = errors.New("the budget is not a number, or not above 0")
	errRules         = fmt.Errorf("more than %d rules", maxRules)
	errFilters       = fmt.Errorf("more than %d filters", maxFilters)
	errPatterns      = fmt.Errorf("more than %d rules that leave out the kind, the priority or the group", maxPatterns)
)

// plan is a checked policy: what a sampler wants, by the names of groups.
type plan struct {
	pooled   [event.PooledRows]kernel.Rule
	promoted map[groupClass]kernel.Rule
	budget   float64 // 0: the core's
	fill     bool
	clamped  int // probabilities above 1
}

// equal tells whether two plans make the same table.
func (p *plan) equal(o *plan) bool {
	return p.pooled == o.pooled && p.budget == o.budget && p.fill == o.fill && maps.Equal(p.promoted, o.promoted)
}

// compiler finds for each class the first rule that matches it.
type compiler struct {
	rules    []kernel.Rule
	exact    map[groupClass]int // first rule, by class
	patterns []pattern
	named    map[string]bool // groups of patterns
	plan     plan
}

type pattern struct {
	match *protov1.ClassPattern
	rule  int
}

// compile checks a policy and resolves its rules. What the core always keeps is not
// the policy's to decide.
func compile(p *protov1.Policy) (*plan, error) {
	if p.DefaultProbability == nil {
		return nil, errNoDefault
	}
	if len(p.GetRules()) > maxRules {
		return nil, errRules
	}
	if err := checkFilters(p.GetFilters()); err != nil {
		return nil, err
	}
	c := &compiler{exact: map[groupClass]int{}, named: map[string]bool{}}
	c.plan.promoted = map[groupClass]kernel.Rule{}
	c.plan.fill = p.GetFillBudget()
	if b := p.BudgetEventsPerSecond; b != nil {
		if !(*b > 0) || math.IsInf(*b, 0) {
			return nil, errBudget
		}
		c.plan.budget = *b
	}
	for _, r := range p.GetRules() {
		if err := c.add(r); err != nil {
			return nil, err
		}
	}
	rest, err := c.rule(p.DefaultProbability, nil)
	if err != nil {
		return nil, err
	}
	c.resolve(rest)
	return &c.plan, nil
}

// checkFilters checks what a sampler may ask for; whether each can be meant is checked
// by who puts them into force.
func checkFilters(filters []*protov1.Filter) error {
	if len(filters) > maxFilters {
		return errFilters
	}
	for i, f := range filters {
		if a := f.GetAction(); a != "" && a != "drop" {
			return fmt.Errorf("filters[%d]: action is %.40q: a sampler's filters drop, and do nothing else", i, a)
		}
	}
	return nil
}

// add takes the next rule.
func (c *compiler) add(r *protov1.Rule) error {
	m := r.GetMatch()
	if m == nil {
		return errNoMatch
	}
	rule, err := c.rule(r.Probability, r.ExpectedEventsPerSecond)
	if err != nil {
		return err
	}
	n := len(c.rules)
	c.rules = append(c.rules, rule)
	if m.Kind == nil || m.Priority == nil || m.Group == nil {
		if len(c.patterns) == maxPatterns {
			return errPatterns
		}
		c.patterns = append(c.patterns, pattern{m, n})
		if m.GetGroup() != "" {
			c.named[m.GetGroup()] = true
		}
		return nil
	}
	kind, ok := event.ParseKind(m.GetKind())
	priority, also := event.ParsePriority(m.GetPriority())
	if !ok || !also || kind >= event.KernelKinds {
		return nil // matches nothing that the kernel decides
	}
	class := groupClass{m.GetGroup(), event.Row(kind, priority)}
	if _, before := c.exact[class]; !before {
		c.exact[class] = n
	}
	return nil
}

func (c *compiler) rule(probability, expected *float64) (kernel.Rule, error) {
	if probability == nil || math.IsNaN(*probability) || math.IsInf(*probability, 0) || *probability < 0 {
		return kernel.Rule{}, errProbability
	}
	if expected != nil && (math.IsNaN(*expected) || math.IsInf(*expected, 0)) {
		return kernel.Rule{}, errExpected
	}
	r := kernel.Rule{Probability: min(*probability, 1)}
	if r.Probability != *probability {
		c.plan.clamped++
	}
	if expected != nil {
		r.Expected = max(*expected, 0)
	}
	return r, nil
}

// first is the first rule that matches a class, and its number.
func (c *compiler) first(class groupClass, rest kernel.Rule) (kernel.Rule, int) {
	n := len(c.rules)
	if exact, ok := c.exact[class]; ok {
		n = exact
	}
	kind, priority := event.RowClass(class.row)
	for _, p := range c.patterns {
		if p.rule >= n {
			break
		}
		m := p.match
		if (m.Kind == nil || m.GetKind() == kind.String()) &&
			(m.Priority == nil || m.GetPriority() == priority.String()) &&
			(m.Group == nil || m.GetGroup() == class.group) {
			n = p.rule
			break
		}
	}
	if n == len(c.rules) {
		return rest, n
	}
	return c.rules[n], n
}

// resolve decides the pooled classes, and those of named groups that are decided by
// another rule than their pooled row.
func (c *compiler) resolve(rest kernel.Rule) {
	var by [event.PooledRows]int
	for row := range by {
		c.plan.pooled[row], by[row] = c.first(groupClass{row: row}, rest)
		if always(row) {
			c.plan.pooled[row] = kernel.Rule{Probability: 1}
		}
	}
	promote := func(class groupClass) {
		if always(class.row) {
			return
		}
		if rule, n := c.first(class, rest); n != by[class.row] {
			c.plan.promoted[class] = rule
		}
	}
	for class := range c.exact {
		if class.group != "" {
			promote(class)
		}
	}
	for group := range c.named {
		for row := range by {
			promote(groupClass{group, row})
		}
	}
}

// always tells whether a class is kept whatever a policy says.
func always(row int) bool {
	kind, priority := event.RowClass(row)
	return kind.Internal() || priority == event.Critical
}
