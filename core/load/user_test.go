package load

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func users() *UserEvents { return newUserEvents(time.Now) }

// ask asks for n events over a time, and gives how many were kept.
func ask(t *testing.T, u *UserEvents, name, priority string, n int, over time.Duration) (kept int) {
	t.Helper()
	for range n {
		keep, weight, err := u.Decide(name, priority)
		if err != nil {
			t.Fatal(err)
		}
		if keep {
			kept++
		}
		if keep != (weight >= 1) {
			t.Fatalf("kept %v with weight %v", keep, weight)
		}
		time.Sleep(over / time.Duration(n))
	}
	return kept
}

func TestEventsOfProgramsAreDecidedByThePolicyInForce(t *testing.T) {
	g, _ := governor()
	answer := &protov1.Policy{
		DefaultProbability: p(0.5),
		Rules: []*protov1.Rule{
			{Match: &protov1.ClassPattern{Kind: s("process.exec")}, Probability: p(0.9)},
			{Match: &protov1.ClassPattern{Kind: s("user.cache"), Priority: s("debug")}, Probability: p(0)},
			{Match: &protov1.ClassPattern{Group: s("container/web")}, Probability: p(0.8)},
			{Match: &protov1.ClassPattern{Priority: s("error")}, Probability: p(1)},
			{Match: &protov1.ClassPattern{Kind: s("user.*"), Priority: s("debug")}, Probability: p(0.1)},
			{Match: &protov1.ClassPattern{Priority: s("critical")}, Probability: p(0)},
		},
	}
	g.Answer(policy(answer))
	for _, c := range []struct {
		name     string
		priority event.Priority
		want     float64
	}{
		{"http_request", event.Info, 0.5},
		{"http_request", event.Error, 1},
		{"http_request", event.Debug, 0.1},
		{"http_request", event.Critical, 1}, // whatever the policy says
		{"cache", event.Debug, 0},
		{"cache", event.Warning, 0.5},
	} {
		if got := g.user.probability(c.name, c.priority); got != c.want {
			t.Errorf("%s %v: %v, want %v", c.name, c.priority, got, c.want)
		}
	}
	g.user.enforce(g.userPolicy, monitor.DefaultRules().Relieve(&protov1.HostLoad{CpuUtilization: p(0.9)}).Factors, kernel.Budget{})
	if got := g.user.probability("http_request", event.Info); got != 0.25 {
		t.Errorf("on a busy host: %v, want half", got)
	}
}

func TestEventsOfProgramsStayWithinTheirPartOfTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := users()
		u.enforce(userPolicy{rest: 1}, monitor.None(), kernel.Budget{EventsPerSecond: 1000}) // 100 for programs
		ask(t, u, "a", "info", 10_000, time.Second)
		before := u.Rows()[0].Events
		kept := ask(t, u, "a", "info", 50_000, 5*time.Second)
		if kept < 400 || kept > 600 {
			t.Errorf("%d were kept in 5 s, the budget is 100 a second", kept)
		}
		r := u.Rows()[0]
		if r.Events != before+uint64(kept) || r.Events+r.SampledOut != 60_000 {
			t.Errorf("the ledger has %+v", r)
		}
		low, high := r.Interval()
		if sd := math.Sqrt(r.Variance); math.Abs(r.Weight-60_000) > 4*sd || !(low < r.Weight && r.Weight < high) {
			t.Errorf("60000 events are estimated as %.0f ± %.0f", r.Weight, sd)
		}
		// Critical ones come through the flood.
		for i := range 1000 {
			if keep, _, _ := u.Decide("a", "info"); keep && i == 0 {
				continue
			}
			if i%100 == 0 {
				if keep, weight, _ := u.Decide("alarm", "critical"); !keep || weight != 1 {
					t.Errorf("a critical event was kept %v with weight %v", keep, weight)
				}
				time.Sleep(50 * time.Millisecond)
			}
		}
	})
}

func TestNamesOfProgramsEventsAreBoundedAndChecked(t *testing.T) {
	u := users()
	for i := range mostNames + 10 {
		if _, _, err := u.Decide(fmt.Sprintf("name-%d", i), "info"); err != nil {
			t.Fatal(err)
		}
	}
	var other, all uint64
	for _, r := range u.Rows() {
		all += r.Events
		if r.Name == otherName {
			other += r.Events
		}
	}
	if len(u.names) != mostNames+1 || other != 10 || all != mostNames+10 {
		t.Errorf("%d names, %d events of others, %d of all", len(u.names), other, all)
	}
	for _, bad := range [][2]string{{"", "info"}, {"a b", "info"}, {"ä", "info"}, {string(make([]byte, 65)), "info"}, {"a", ""}, {"a", "severe"}} {
		if _, _, err := u.Decide(bad[0], bad[1]); err == nil {
			t.Errorf("%q %q is taken", bad[0], bad[1])
		}
		if _, err := u.Exchange(&protov1.UserReport{Sequence: 1, Counts: []*protov1.UserCounts{{Name: bad[0], Priority: bad[1]}}}); err == nil {
			t.Errorf("%q %q is taken in a report", bad[0], bad[1])
		}
	}
}

func TestAReportThatComesAgainIsCountedOnce(t *testing.T) {
	u := users()
	r := &protov1.UserReport{Program: 7, Sequence: 1, Recorded: 3, Dropped: 2, Counts: []*protov1.UserCounts{
		{Name: "a", Priority: "error", Kept: 4, SampledOut: 6, Weight: 10, Variance: 15},
		{Name: "b", Priority: "info", Kept: 1, Weight: math.NaN(), Variance: math.Inf(1)},
	}}
	for range 3 {
		if _, err := u.Exchange(r); err != nil {
			t.Fatal(err)
		}
	}
	rows := u.Rows()
	if len(rows) != 2 || rows[0].Events != 4 || rows[0].SampledOut != 6 || rows[0].Weight != 10 || rows[0].Priority != event.Error || rows[1].Weight != 0 {
		t.Errorf("the ledger has %+v", rows)
	}
	if s := u.Stats(); s.Recorded != 3 || s.Dropped != 2 || s.Programs != 1 {
		t.Errorf("%v", s)
	}
}

func TestProgramsShareTheBudgetByTheirDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := users()
		u.enforce(userPolicy{rest: 1}, monitor.None(), kernel.Budget{EventsPerSecond: 10_000, Reserve: 0.3})
		parts := map[uint64]float64{}
		exchange := func(program, sequence, events uint64) {
			table, err := u.Exchange(&protov1.UserReport{Program: program, Sequence: sequence, Counts: []*protov1.UserCounts{{Name: "a", Priority: "info", Kept: events}}})
			if err != nil {
				t.Fatal(err)
			}
			if parts[program] = table.GetEventsPerSecond(); table.GetReserve() != 0.3 {
				t.Fatalf("the reserve is %v", table.GetReserve())
			}
		}
		exchange(1, 1, 0)
		if parts[1] != 1000 {
			t.Errorf("one alone has %v of 1000", parts[1])
		}
		for i := range uint64(20) {
			time.Sleep(time.Second)
			exchange(1, i+2, 900)
			exchange(2, i+2, 100)
		}
		if sum := parts[1] + parts[2]; math.Abs(sum-1000) > 20 || math.Abs(parts[1]-700) > 30 {
			t.Errorf("the parts are %v", parts)
		}
		time.Sleep(absence)
		exchange(2, 100, 0)
		if parts[2] != 1000 {
			t.Errorf("once the other is gone it has %v", parts[2])
		}
		if _, err := u.Exchange(&protov1.UserReport{Program: 2, Sequence: 101, Last: true}); err != nil || u.Stats().Programs != 0 {
			t.Errorf("after the last report: %v, %v", err, u.Stats())
		}
	})
}

func TestThereAreNoMoreProgramsThanBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := users()
		for i := range uint64(mostPrograms) {
			if _, err := u.Exchange(&protov1.UserReport{Program: i, Sequence: 1}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := u.Exchange(&protov1.UserReport{Program: mostPrograms, Sequence: 1}); err == nil {
			t.Error("one more is taken")
		}
		time.Sleep(absence)
		if _, err := u.Exchange(&protov1.UserReport{Program: mostPrograms, Sequence: 1}); err != nil {
			t.Errorf("once the others are gone: %v", err)
		}
	})
}

func TestATableHasTheRulesOfNamesThatWereNotMetYet(t *testing.T) {
	g, _ := governor()
	g.Answer(policy(&protov1.Policy{DefaultProbability: p(0.5), Rules: []*protov1.Rule{
		{Match: &protov1.ClassPattern{Kind: s("user.db"), Priority: s("info")}, Probability: p(0.2)},
	}}))
	table, err := g.User().Exchange(&protov1.UserReport{Program: 1, Sequence: 1})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, r := range table.GetRules() {
		got[r.GetName()+" "+r.GetPriority()] = r.GetProbability()
	}
	if len(got) != 10 || got[" info"] != 0.5 || got[" critical"] != 1 || got["db info"] != 0.2 || got["db debug"] != 0.5 {
		t.Errorf("the table is %v", got)
	}
}

func BenchmarkDecide(b *testing.B) {
	u := users()
	u.enforce(userPolicy{rest: 0.5}, monitor.None(), kernel.Budget{EventsPerSecond: 10_000})
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := u.Decide("http_request", "info"); err != nil {
			b.Fatal(err)
		}
	}
}
