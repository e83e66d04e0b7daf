package main

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
)

// report of a second, for a budget of 1,000 events/s and room for 100 classes of groups.
func report(classes ...*protov1.ClassLoad) *protov1.Report {
	return &protov1.Report{IntervalNano: int64(time.Second), BudgetEventsPerSecond: 1000, RowCapacity: 100, Classes: classes}
}

// pooled is a report of classes of groups that have no row.
func pooled(classes ...*protov1.ClassLoad) *protov1.Report {
	r := report()
	r.PooledClasses = classes
	return r
}

// load of a class, of which all were kept: "kind priority" or "kind priority group".
func load(name string, seen uint64) *protov1.ClassLoad {
	f := append(strings.Fields(name), "")
	return &protov1.ClassLoad{Class: &protov1.Class{Kind: f[0], Priority: f[1], Group: f[2]}, Seen: seen, Kept: seen}
}

// started is a sampler whose stream has begun.
func started(t *testing.T, c Config) *sampler {
	t.Helper()
	c.Exponent = 0.5
	s := newSampler(c)
	if p, err := s.Start(t.Context()); err != nil || p.GetDefaultProbability() != 1 || len(p.GetRules()) != 0 || !p.GetFillBudget() {
		t.Fatalf("it starts with %v, %v", p, err)
	}
	return s
}

func planned(t *testing.T, s sampling.Sampler, r *protov1.Report) *protov1.Policy {
	t.Helper()
	p, err := s.Plan(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rules of a policy, by the names of their classes.
func rules(p *protov1.Policy) map[string]*protov1.Rule {
	out := map[string]*protov1.Rule{}
	for _, r := range p.GetRules() {
		m := r.GetMatch()
		out[strings.TrimSpace(m.GetKind()+" "+m.GetPriority()+" "+m.GetGroup())] = r
	}
	return out
}

func TestALoadIsBelievedByAndByAndAChangeAtOnce(t *testing.T) {
	for _, test := range []struct {
		n, weight, want float64
	}{
		{110, 1, 102.5}, // a quarter of the way
		{139, 1, 109.75},
		{60, 1, 90}, // four standard deviations of 100 are 40
		{59, 1, 59},
		{148, 1, 112},    // of 148 they are 48.7
		{149, 1, 149},    // and of 149 48.8
		{148, 4, 112},    // what stands for four varies twice as much
		{190, 4, 122.5},  // four of 190 are 110
		{10_000, 1, 1e4}, // no chance
		{0, 1, 0},        // nothing at all
	} {
		r := rate{rate: 100, known: true}
		if r.hear(test.n, test.weight, 1); r.rate != test.want {
			t.Errorf("after 100 events/s come %v of weight %v: %v is believed, want %v", test.n, test.weight, r.rate, test.want)
		}
	}
	var first rate
	if first.hear(7, 1, 0.5); first.rate != 14 {
		t.Errorf("of 7 events in half a second %v is believed at first, want 14 events/s", first.rate)
	}
	faint := rate{rate: 1.2e-3, known: true}
	if faint.hear(0, 1, 1); faint.rate != 0 {
		t.Errorf("%v is remembered of what is gone", faint.rate)
	}
}

func TestAGroupGetsARowWhenItLastsOrIsBusy(t *testing.T) {
	s := started(t, Config{})
	for n := range 3 {
		got := rules(planned(t, s, pooled(load("file.open debug lasts", 2), load("file.open debug busy", 20))))
		if got["file.open debug busy"] == nil && n == 0 {
			t.Error("20 events/s have no row")
		}
		if has := s.learned.members[s.learned.numbers[class{"file.open", "debug", "lasts"}]].promoted; has != (n == 2) {
			t.Errorf("after %d reports with events it is %v that it has a row", n+1, has)
		}
	}
}

func TestAGroupLosesItsRowWhenItIsIdle(t *testing.T) {
	s := started(t, Config{})
	planned(t, s, pooled(load("file.open debug gone", 200), load("file.open debug stays", 200)))
	for n := range idle + 1 {
		if len(s.learned.numbers) != 3 {
			t.Fatalf("after %d reports without an event it is forgotten", n)
		}
		planned(t, s, report(load("file.open debug stays", 200)))
	}
	if _, known := s.learned.numbers[class{"file.open", "debug", "gone"}]; known {
		t.Fatal("it is remembered")
	}
	// Its number is given to another, whose rules are then its own.
	got := rules(planned(t, s, pooled(load("file.open debug new", 200), load("file.open debug stays", 200))))
	if len(s.learned.members) != 3 || got["file.open debug new"] == nil || got["file.open debug gone"] != nil {
		t.Errorf("%d members, rules %v", len(s.learned.members), got)
	}
}

func TestOneThatHasARowKeepsItAgainstItsLike(t *testing.T) {
	l := newLearned()
	only := func(r *protov1.Report) string {
		r.RowCapacity = 1
		l.hear(r, time.Second)
		var names []string
		for i := range l.members {
			if l.members[i].promoted {
				names = append(names, l.members[i].match.GetGroup())
			}
		}
		return fmt.Sprint(names)
	}
	both := func(a, b uint64) *protov1.Report {
		return pooled(load("file.open debug a", a), load("file.open debug b", b))
	}
	if got := only(both(100, 90)); got != "[a]" {
		t.Errorf("the busier of two gets the row: %v has it", got)
	}
	if got := only(both(100, 190)); got != "[a]" {
		t.Errorf("%v has the row, though the other is not twice as busy", got)
	}
	if got := only(both(100, 400)); got != "[b]" {
		t.Errorf("%v has the row, though the other is four times as busy", got)
	}
}

func TestPlansHaveNoMoreRowsThanThereIsRoomFor(t *testing.T) {
	s := started(t, Config{})
	var classes []*protov1.ClassLoad
	for i := range 500 {
		classes = append(classes, load(fmt.Sprintf("file.open debug g%d", i), uint64(1000+i)))
	}
	r := pooled(classes...)
	got := rules(planned(t, s, r))
	if len(got) != 100 || got["file.open debug g499"] == nil || got["file.open debug g400"] == nil || got["file.open debug g399"] != nil {
		t.Errorf("%d classes have rules, want the 100 busiest", len(got))
	}
	r.RowCapacity = 0
	if got := planned(t, s, r); got == nil || len(got.Rules) != 0 {
		t.Errorf("without room there are the rules %v", got.GetRules())
	}
}

func TestTheBudgetIsTheLesserOfTheDaemonsAndItsOwn(t *testing.T) {
	for _, test := range []struct{ own, daemon, want float64 }{
		{0, 1000, 1000}, {500, 1000, 500}, {2000, 1000, 1000}, {500, 0, 500}, {0, 0, 0}, {0, -1, -1}, {500, -1, 500},
	} {
		s := started(t, Config{Budget: test.own})
		r := report(load("file.open debug", 10_000))
		r.BudgetEventsPerSecond = test.daemon
		if got := s.budget(r); got != test.want {
			t.Errorf("own %v and daemon's %v: %v, want %v", test.own, test.daemon, got, test.want)
		}
		p := planned(t, s, r)
		if test.want <= 0 {
			if p != nil {
				t.Errorf("without a budget there is the policy %v", p)
			}
			continue
		}
		if got, want := p.GetRules()[0].GetProbability(), 0.99*test.want/10_000; math.Abs(got-want) > 1e-9 {
			t.Errorf("own %v and daemon's %v: %v is kept, want %v", test.own, test.daemon, got, want)
		}
		if got := p.GetBudgetEventsPerSecond(); got != test.own {
			t.Errorf("the kernel is told a budget of %v, want %v", got, test.own)
		}
	}
}

func TestCriticalEventsAreTakenOffTheBudgetFirst(t *testing.T) {
	s := started(t, Config{})
	p := planned(t, s, report(load("process.exit critical", 400), load("file.open debug", 10_000)))
	got := rules(p)
	if len(got) != 1 || math.Abs(got["file.open debug"].GetProbability()-0.99*600/10_000) > 1e-9 {
		t.Errorf("rules %v", got)
	}
}

func TestAClassIsExpectedToComeAsItDid(t *testing.T) {
	s := started(t, Config{})
	got := rules(planned(t, s, report(load("file.open debug", 10_000), load("process.exec info", 3))))
	if e := got["file.open debug"].GetExpectedEventsPerSecond(); e != 10_000 {
		t.Errorf("%v are expected, want 10000", e)
	}
	if e := got["process.exec info"].GetExpectedEventsPerSecond(); e != unknown {
		t.Errorf("%v are expected of a rare one, want %v", e, unknown)
	}
}

func TestAPlanAsGoodAsTheLastIsNotTold(t *testing.T) {
	s := started(t, Config{})
	first := planned(t, s, report(load("file.open debug", 10_000)))
	if first == nil {
		t.Fatal("nothing is told of the first report")
	}
	kept := proto.Clone(first)
	for range 100 {
		if p := planned(t, s, report(load("file.open debug", 10_050))); p != nil {
			t.Fatalf("%v is told, which is next to nothing new", p)
		}
	}
	second := planned(t, s, report(load("file.open debug", 40_000)))
	if second == nil || second.GetSequence() <= first.GetSequence() {
		t.Errorf("of four times the load %v is told", second)
	}
	if !proto.Equal(first, kept) {
		t.Error("a later plan has changed a policy that was told")
	}
	if p, err := s.Start(t.Context()); err != nil || p.GetSequence() <= second.GetSequence() {
		t.Errorf("a stream that begins again starts with %v, %v", p, err)
	}
	if p := planned(t, s, report(load("file.open debug", 40_000))); p == nil {
		t.Error("after a new start nothing is told")
	}
}

func TestBandsHoldWhileTheBudgetIsShort(t *testing.T) {
	s := started(t, Config{Bands: true})
	probability := func(p *protov1.Policy) float64 { return rules(p)["file.open debug"].GetProbability() }
	p := planned(t, s, report(load("file.open debug", 900)))
	if probability(p) != 1 || !p.GetFillBudget() || len(p.Rules) != 1 {
		t.Errorf("with room for all: %v", p)
	}
	p = planned(t, s, report(load("file.open debug", 1100)))
	if math.Abs(probability(p)-0.1) > 1e-9 || p.GetFillBudget() || !strings.Contains(p.GetReason(), "band") {
		t.Errorf("with room for 1000: %v", p)
	}
	// What no rule matches yet.
	if got := rules(p); got["debug"].GetProbability() != 0.1 || got["info"].GetProbability() != 0.5 || got["warning"].GetProbability() != 0.8 || got["error"].GetProbability() != 1 {
		t.Errorf("rules %v", got)
	}
	s.learned.members[0].rate.rate = 950
	if p = planned(t, s, report(load("file.open debug", 950))); p != nil && p.GetFillBudget() {
		t.Errorf("with a twentieth of the budget to spare: %v", p)
	}
	if p = planned(t, s, report(load("file.open debug", 500))); probability(p) != 1 || !p.GetFillBudget() {
		t.Errorf("with half of the budget to spare: %v", p)
	}
}

func TestReportsThatAreUnlikely(t *testing.T) {
	huge := func(n uint64) *protov1.Report {
		return report(load("file.open debug", n), load("process.exec info", n))
	}
	twice := report(load("file.open debug", 300), load("file.open debug", 700))
	twice.Classes[0].Generation, twice.Classes[1].Generation = 1, 2
	more := report(load("file.open debug", 100))
	more.Classes[0].Filtered = 101
	moment := huge(math.MaxUint64)
	moment.IntervalNano = 1
	age := huge(1)
	age.IntervalNano = math.MaxInt64
	kinds := report()
	for i := range 3 * mostPooled {
		kinds.Classes = append(kinds.Classes, load(fmt.Sprintf("kind%d debug", i), 5))
	}
	groups := report()
	for i := range 2 * mostGrouped {
		groups.PooledClasses = append(groups.PooledClasses, load(fmt.Sprintf("file.open debug g%d", i), 50))
	}
	groups.RowCapacity = math.MaxUint32
	all := []*protov1.Report{
		{}, report(), huge(0), huge(math.MaxUint64), moment, age, twice, more, kinds, groups,
		report(&protov1.ClassLoad{}, load("file.open unheard", 5), load("file.open unheard g", 5), load("file.open debug stranger", 5)),
		pooled(&protov1.ClassLoad{}, load("file.open unheard g", 5), load("file.open debug", 5), load("file.open debug g", 0), load("file.open critical g", 5)),
	}
	for name, make := range map[string]func(Config) sampling.Sampler{
		"adaptive":   func(c Config) sampling.Sampler { return newSampler(c) },
		"predictive": func(c Config) sampling.Sampler { return newPredictive(c) },
	} {
		t.Run(name, func(t *testing.T) {
			s := make(Config{Exponent: 0.5, Interval: defaultInterval, Season: 2 * time.Second, Bands: true})
			if _, err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			for round := range 15 {
				for i, r := range all {
					if p := planned(t, s, r); p != nil {
						sound(t, fmt.Sprintf("round %d, report %d", round, i), p)
					}
				}
			}
		})
	}

	s := started(t, Config{})
	planned(t, s, twice)
	if got := s.learned.members[0].rate.rate; got != 1000 {
		t.Errorf("of 300 and 700 events under two policies %v are heard", got)
	}
	s = started(t, Config{})
	planned(t, s, more)
	if got := s.learned.members[0].rate.rate; got != 0 {
		t.Errorf("of 100 events, 101 of them filtered, %v are heard", got)
	}
	l := newLearned()
	l.hear(kinds, time.Second)
	l.hear(groups, time.Second)
	if l.pooled > mostPooled || l.grouped > mostGrouped || len(l.members) > mostPooled+mostGrouped {
		t.Errorf("%d and %d classes are remembered", l.pooled, l.grouped)
	}
	if len(l.aspiring) > mostRows {
		t.Errorf("%d rows are wanted", len(l.aspiring))
	}
}

// sound fails if the daemon would refuse a policy or change it.
func sound(t *testing.T, when string, p *protov1.Policy) {
	t.Helper()
	if len(p.GetRules()) > 8192 || p.DefaultProbability == nil {
		t.Fatalf("%s: %d rules", when, len(p.GetRules()))
	}
	for _, r := range p.GetRules() {
		if r.Match == nil || r.Probability == nil || !(r.GetProbability() >= rarest && r.GetProbability() <= 1) {
			t.Fatalf("%s: %v", when, r)
		}
		if e := r.GetExpectedEventsPerSecond(); !(e >= 0 && e < math.MaxFloat64) {
			t.Fatalf("%s: %v", when, r)
		}
	}
}
