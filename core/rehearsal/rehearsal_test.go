package rehearsal

import (
	"context"
	"errors"
	"iter"
	"math"
	"os"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/simulation"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// steady is a load of one class, an event a millisecond for 5 s.
func steady(t *testing.T) simulation.Scenario {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the decision is a BPF program, which only root may load")
	}
	return simulation.Scenario{
		Name: "steady", Duration: 5 * time.Second, Budget: 10_000,
		Events: func(uint64) iter.Seq[simulation.Event] {
			return func(yield func(simulation.Event) bool) {
				for at := time.Duration(0); at < 5*time.Second; at += time.Millisecond {
					if !yield(simulation.Event{At: int64(at), Group: 1, Kind: event.FileOpen}) {
						return
					}
				}
			}
		},
	}
}

// keeping is a policy of one probability.
func keeping(probability float64) *protov1.Answer {
	return &protov1.Answer{Answer: &protov1.Answer_Policy{Policy: &protov1.Policy{DefaultProbability: proto.Float64(probability)}}}
}

func TestASamplersPolicyDecidesFromWhenItArrives(t *testing.T) {
	var reports []*protov1.Report
	r, err := Run(t.Context(), Options{
		Scenario: steady(t), Seed: 1, Interval: time.Second, Lag: 100 * time.Millisecond,
		Sampler: func(r *protov1.Report) (*protov1.Answer, error) {
			if r == nil {
				return keeping(1), nil
			}
			reports = append(reports, r)
			return keeping(0.5), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	// All for 1.1 s, then half.
	if r.Seen != 5000 || math.Abs(float64(r.Kept)-(1100+3900/2)) > 150 || math.Abs(r.Bias) > 0.05 {
		t.Errorf("%d of %d were kept, bias %v", r.Kept, r.Seen, r.Bias)
	}
	if r.Policies != 1 || r.Refused != 0 || r.Unanswered != 0 {
		t.Errorf("%+v", r)
	}
	if len(reports) != 4 {
		t.Fatalf("%d reports", len(reports))
	}
	for i, report := range reports {
		var seen uint64
		for _, c := range report.Classes {
			seen += c.Seen
		}
		if report.IntervalNano != int64(time.Second) || seen != 1000 || report.Merged != 0 {
			t.Errorf("report %d: %d ns, %d seen, %d merged", i, report.IntervalNano, seen, report.Merged)
		}
	}
}

func TestNoReportIsMadeWhileAnAnswerIsOnItsWay(t *testing.T) {
	var merged, took []int64
	r, err := Run(t.Context(), Options{
		Scenario: steady(t), Seed: 1, Interval: 500 * time.Millisecond, Lag: 1200 * time.Millisecond,
		Sampler: func(r *protov1.Report) (*protov1.Answer, error) {
			if r != nil {
				merged, took = append(merged, int64(r.Merged)), append(took, r.IntervalNano/1e6)
			}
			return keeping(1), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	// At 0.5 s, and 1.5 s after each when the answer is there.
	if len(merged) != 3 || merged[0] != 0 || merged[1] != 2 || merged[2] != 2 || took[1] != 1500 {
		t.Errorf("reports are of %v ms and have %v merged", took, merged)
	}
	if r.Unanswered != 0 {
		t.Errorf("%d were not answered", r.Unanswered)
	}
}

func TestWithoutAnAnswerTheLoadGoesOnAndItIsTold(t *testing.T) {
	asked := 0
	r, err := Run(t.Context(), Options{
		Scenario: steady(t), Seed: 1, Interval: time.Second,
		Sampler: func(*protov1.Report) (*protov1.Answer, error) {
			if asked++; asked < 3 {
				return keeping(0.5), nil
			}
			return nil, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Seen != 5000 || r.Unanswered != 3 || r.AwayFrom != 2*time.Second {
		t.Errorf("%+v", r)
	}
}

func TestTheBudgetHoldsAndIsWhatIsScoredBy(t *testing.T) {
	r, err := Run(t.Context(), Options{Scenario: steady(t), Seed: 1, Budget: 100})
	if err != nil {
		t.Fatal(err)
	}
	if r.MaxSecond < 0.5 || r.MaxSecond > 1.8 || r.Kept > 1000 {
		t.Errorf("%d were kept, %v of the budget in a second", r.Kept, r.MaxSecond)
	}
}

func TestARehearsalEndsWithItsContextAndWithAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Run(ctx, Options{Scenario: steady(t), Seed: 1, Progress: func(time.Duration) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	broken := errors.New("broken")
	_, err = Run(t.Context(), Options{Scenario: steady(t), Sampler: func(*protov1.Report) (*protov1.Answer, error) { return nil, broken }})
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}
