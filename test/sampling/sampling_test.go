package sampling

import (
	"flag"
	"fmt"
	"iter"
	"math"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/simulation"
)

// peers is read by the tests only.
var peers = flag.Bool("peers", false, "run every candidate on every scenario, each after a preroll")

const seed = 1

// result is how a candidate did on a scenario.
type result struct {
	scenario, candidate string
	score               simulation.Score
	took                time.Duration // of the machine's time
}

func run(t *testing.T, s simulation.Scenario, c Candidate) result {
	t.Helper()
	sc := simulation.NewScorer(s)
	start := time.Now()
	c.Run(t, s, seed, sc)
	return result{s.Name, c.Name(), sc.Score(), time.Since(start)}
}

// until is a scenario's beginning.
func until(s simulation.Scenario, end time.Duration) simulation.Scenario {
	all := s.Events
	s.Name = fmt.Sprintf("%s, %v", s.Name, end)
	s.Duration = end
	s.Events = func(seed uint64) iter.Seq[simulation.Event] {
		return func(yield func(simulation.Event) bool) {
			for e := range all(seed) {
				if e.At >= int64(end) || !yield(e) {
					return
				}
			}
		}
	}
	return s
}

// table of results, a line each.
func table(results []result) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "scenario\tcandidate\tseen\tkept\tring lost\tmax s\tmax 0.1s\tabove\tutilisation\tcritical\tcovered\tbias\terror\tintervals\thit\ttook\t")
	for _, r := range results {
		s := &r.score
		hit := "-"
		if s.Intervals > 0 {
			hit = fmt.Sprintf("%.3f", float64(s.IntervalsHit)/float64(s.Intervals))
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%.2f\t%.2f\t%v\t%.3f\t%.3f\t%.3f\t%+.4f\t%.3f\t%d\t%s\t%.1fs\t\n",
			r.scenario, r.candidate, s.Seen, s.Kept, s.RingLost, s.MaxSecond, s.MaxTenth, s.Above, s.Utilisation,
			s.Critical, s.Covered, s.Bias, s.Error, s.Intervals, hit, r.took.Seconds())
	}
	w.Flush()
	return b.String()
}

// compare runs candidates on scenarios and prints the table.
func compare(t *testing.T, scenarios []simulation.Scenario, candidates []Candidate) []result {
	t.Helper()
	var results []result
	for _, s := range scenarios {
		for _, c := range candidates {
			t.Run(s.Name+"/"+c.Name(), func(t *testing.T) {
				r := run(t, s, c)
				results = append(results, r)
				check(t, s, r.score)
			})
		}
	}
	t.Log("\n" + table(results))
	return results
}

func TestAPeerCanBeRunAgainstAScenario(t *testing.T) {
	compare(t, []simulation.Scenario{until(scenario(t, "S1"), 8*time.Second)}, cheap())
}

// scenario by its name.
func scenario(t *testing.T, name string) simulation.Scenario {
	t.Helper()
	s, ok := simulation.Find(name)
	if !ok {
		t.Fatalf("there is no scenario %s", name)
	}
	return s
}

// check what holds for whoever decides.
func check(t *testing.T, s simulation.Scenario, got simulation.Score) {
	t.Helper()
	if got.Seen == 0 || got.Kept == 0 || got.Kept+got.RingLost > got.Seen {
		t.Errorf("of %d events %d were kept and %d lost", got.Seen, got.Kept, got.RingLost)
	}
	// Of what the ring's reader takes in all the time, and the ring holds.
	if most := s.Budget * (1.2*(s.Duration-s.Warmup).Seconds() + 0.5); float64(got.Kept) > most {
		t.Errorf("%d events were kept, and the ring lets through %v at most", got.Kept, most)
	}
	for what, share := range map[string]float64{"critical": got.Critical, "covered": got.Covered, "utilisation": got.Utilisation / 1.5} {
		if share < 0 || share > 1 {
			t.Errorf("%s is %v", what, share)
		}
	}
}

// one is a scenario of a single class and one event a millisecond, of which a tenth is
// wanted.
func one() simulation.Scenario {
	return simulation.Scenario{
		Name: "one", Duration: 10 * time.Second, Warmup: 5 * time.Second, Budget: 100,
		Events: func(uint64) iter.Seq[simulation.Event] {
			return func(yield func(simulation.Event) bool) {
				for at := time.Duration(0); at < 10*time.Second; at += time.Millisecond {
					if !yield(simulation.Event{At: int64(at), Group: 1, Kind: event.FileOpen}) {
						return
					}
				}
			}
		},
	}
}

// Of 1,000 events/s, as the library says before its first tick, all are kept, or one in
// ten with EMAThroughput.
func TestTheTickersOfTheLibraryFollowTheScenario(t *testing.T) {
	for _, test := range []struct {
		candidate Candidate
		budget    float64
		share     float64
	}{
		{emaThroughput(time.Second), 250, 1.0 / 4},
		{totalThroughput(time.Second), 250, 1.0 / 4},
		{totalThroughput(30 * time.Second), 250, 1}, // it does not tick before the end
		// At n s it has seen 1,000 n events where it wants 50 · 30: one in 3, 4, 4, 5
		// and 6 in the seconds after the warm-up.
		{windowedThroughput(), 50, (1.0/3 + 1.0/4 + 1.0/4 + 1.0/5 + 1.0/6) / 5},
	} {
		t.Run(test.candidate.Name(), func(t *testing.T) {
			s := one()
			s.Budget = test.budget
			start := time.Now()
			got := run(t, s, test.candidate).score
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("10 s of the scenario took %v", took)
			}
			if share := float64(got.Kept+got.RingLost) / float64(got.Seen); math.Abs(share-test.share) > 0.02 {
				t.Errorf("it keeps %v, want %v", share, test.share)
			}
		})
	}
}

func TestTheStaticProbabilityIsOfTheLoadBeforeItsFirstStep(t *testing.T) {
	s := one()
	s.Events = func(uint64) iter.Seq[simulation.Event] {
		return func(yield func(simulation.Event) bool) {
			gap := time.Millisecond
			for at := time.Duration(0); at < 10*time.Second; at += gap {
				if at >= 8*time.Second {
					gap = time.Microsecond
				}
				if !yield(simulation.Event{At: int64(at), Group: 1, Kind: event.FileOpen}) {
					return
				}
			}
		}
	}
	s.Steps = []time.Duration{8 * time.Second}
	if got := firstRate(s, seed); got != 1000 {
		t.Errorf("the rate is %v, want 1000", got)
	}
}

// 1,000 events/s, of which 100 are kept, with a weight of 1.
func TestTheRateLimiterMeetsItsRateAndLosesTheWeights(t *testing.T) {
	got := run(t, one(), limiter{}).score
	if math.Abs(float64(got.Kept)-500) > 1 || got.RingLost != 0 || math.Abs(got.Bias+0.9) > 1e-3 {
		t.Errorf("%+v", got)
	}
}
