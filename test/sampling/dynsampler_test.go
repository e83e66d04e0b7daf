package sampling

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	dynsampler "github.com/honeycombio/dynsampler-go"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/simulation"
)

// library is one of dynsampler-go's samplers, which Honeycomb's Refinery samples with. It
// is asked about each event, by a key for its class, and told nothing of priorities.
type library struct {
	name  string
	burst bool // an event can make it calculate, beside its ticker
	make  func(budget float64) dynsampler.Sampler
}

var _ Candidate = library{}

func emaThroughput(interval time.Duration) library {
	return library{fmt.Sprintf("dynsampler EMA, %v", interval), true, func(budget float64) dynsampler.Sampler {
		return &dynsampler.EMAThroughput{GoalThroughputPerSec: int(budget), AdjustmentInterval: interval}
	}}
}

func totalThroughput(interval time.Duration) library {
	return library{fmt.Sprintf("dynsampler total, %v", interval), false, func(budget float64) dynsampler.Sampler {
		return &dynsampler.TotalThroughput{GoalThroughputPerSec: int(budget), ClearFrequencyDuration: interval}
	}}
}

// windowedThroughput calculates each second, of the last 30.
func windowedThroughput() library {
	return library{"dynsampler windowed, 1s of 30s", false, func(budget float64) dynsampler.Sampler {
		return &dynsampler.WindowedThroughput{GoalThroughputPerSec: budget}
	}}
}

func (l library) Name() string { return l.name }

// Run has the library's tickers follow the scenario's time.
func (l library) Run(t *testing.T, s simulation.Scenario, seed uint64, sc *simulation.Scorer) {
	synctest.Test(t, func(t *testing.T) {
		sampler := l.make(s.Budget)
		if err := sampler.Start(); err != nil {
			t.Fatalf("start %s: %v", l.name, err)
		}
		// Within the bubble, which ends when its goroutines have.
		defer func() {
			if err := sampler.Stop(); err != nil {
				t.Errorf("stop %s: %v", l.name, err)
			}
		}()
		keys := keys{}
		draw := rand.New(rand.NewPCG(seed, draws))
		now := time.Duration(0)
		for e := range s.Events(seed) {
			now = follow(now, time.Duration(e.At))
			// 0 is the answer about a key that is not known yet. Refinery keeps it.
			of := max(1, sampler.GetSampleRate(keys.of(&e)))
			if l.burst {
				synctest.Wait() // or else the next events would race with the new rates
			}
			sc.Add(e, simulation.Outcome{Kept: of == 1 || draw.Float64()*float64(of) < 1, Weight: float64(of)})
		}
		follow(now, s.Duration)
	})
}

// follow lets the bubble's time pass until the millisecond of an event, and what ticks
// by then be done.
func follow(now, to time.Duration) time.Duration {
	to = to.Truncate(time.Millisecond)
	if to > now {
		time.Sleep(to - now)
		synctest.Wait()
		return to
	}
	return now
}

// keys are the strings for classes: made once, since a string for each event would cost
// more than the library.
type keys map[uint32]*[event.PooledRows]string

func (k keys) of(e *simulation.Event) string {
	rows := k[e.Group]
	if rows == nil {
		rows = new([event.PooledRows]string)
		k[e.Group] = rows
	}
	key := &rows[event.Row(e.Kind, e.Priority)]
	if *key == "" {
		*key = fmt.Sprintf("%d %s %s", e.Group, e.Kind, e.Priority)
	}
	return *key
}
