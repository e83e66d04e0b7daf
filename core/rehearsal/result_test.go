package rehearsal

import (
	"math"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/simulation"
)

func TestAPooledResultHasSumsTheWorstAndMeans(t *testing.T) {
	one := &Result{
		Score: simulation.Score{
			Seen: 10, Kept: 5, RingLost: 1, MaxSecond: 1, MaxTenth: 2, Above: time.Second, Utilisation: 0.5,
			Critical: 1, Covered: 1, Bias: 0.2, Error: 0.1, Intervals: 4, IntervalsHit: 3,
		},
		Policies: 2, Promoted: 7, Planning: time.Second, Unanswered: 1, AwayFrom: 3 * time.Second,
	}
	other := &Result{
		Score: simulation.Score{
			Seen: 20, Kept: 6, MaxSecond: 1.5, MaxTenth: 1, Utilisation: 1, Critical: 0.5, Covered: 0.5,
			Bias: -0.1, Error: 0.3, Intervals: 1, IntervalsHit: 1,
		},
		Policies: 3, Refused: 4, Promoted: 2, Planning: time.Minute,
	}
	want := Result{
		Score: simulation.Score{
			Seen: 30, Kept: 11, RingLost: 1, MaxSecond: 1.5, MaxTenth: 2, Above: time.Second, Utilisation: 0.75,
			Critical: 0.75, Covered: 0.75, Bias: 0.05, Error: 0.2, Intervals: 5, IntervalsHit: 4,
		},
		Policies: 5, Refused: 4, Promoted: 7, Planning: time.Minute, Unanswered: 1, AwayFrom: 3 * time.Second,
	}
	if got := *Pool([]*Result{one, other}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestTheStandardErrorIsThatOfTheMean(t *testing.T) {
	// The variance is 2.5.
	if got, want := StandardError([]float64{1, 2, 3, 4, 5}), math.Sqrt(0.5); math.Abs(got-want) > 1e-12 {
		t.Errorf("%v, want %v", got, want)
	}
	if got := StandardError([]float64{1}); !math.IsInf(got, 1) {
		t.Errorf("of one number it is %v", got)
	}
}
