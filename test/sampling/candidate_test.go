package sampling

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/simulation"
)

// A Candidate decides about events in order.
type Candidate interface {
	Name() string
	// Run decides about all events of a scenario and has each scored, in order. The same
	// seed gives the same events; what the candidate draws may differ.
	Run(t *testing.T, s simulation.Scenario, seed uint64, sc *simulation.Scorer)
}

// candidates that are compared. A new one is added here.
func candidates() []Candidate {
	return []Candidate{
		emaThroughput(time.Second),
		emaThroughput(15 * time.Second), // the library's default
		totalThroughput(time.Second),
		totalThroughput(30 * time.Second), // the library's default
		windowedThroughput(),
		static{},
		limiter{},
	}
}

// cheap are two of them that decide quickly, for every run of the tests: one that is
// told of time by a ticker, and one that is not.
func cheap() []Candidate { return []Candidate{emaThroughput(time.Second), static{}} }

// static keeps each event with one probability: what an operator sets who has measured
// the load once, before it changes.
type static struct{}

func (static) Name() string { return "static probability" }

func (static) Run(_ *testing.T, s simulation.Scenario, seed uint64, sc *simulation.Scorer) {
	p := min(1, s.Budget/firstRate(s, seed))
	draw := rand.New(rand.NewPCG(seed, draws))
	for e := range s.Events(seed) {
		sc.Add(e, simulation.Outcome{Kept: draw.Float64() < p, Weight: 1 / p})
	}
}

// draws is the stream of random numbers that candidates draw from. That of the events
// is another.
const draws = 1

// firstRate is the mean rate of a scenario before its first step, in events/s.
func firstRate(s simulation.Scenario, seed uint64) float64 {
	end := s.Duration
	if len(s.Steps) > 0 {
		end = s.Steps[0]
	}
	var n float64
	for e := range s.Events(seed) {
		if e.At >= int64(end) {
			break
		}
		n++
	}
	return n / end.Seconds()
}

// limiter is a token bucket, of the budget's rate, that holds a tenth of a second of it.
// It keeps what comes while there are tokens, and does not know the probability with which
// it kept it: the weight is 1. The limits of Tetragon and of OpenTelemetry's samplers
// work so.
type limiter struct{}

func (limiter) Name() string { return "rate limiter" }

func (limiter) Run(_ *testing.T, s simulation.Scenario, seed uint64, sc *simulation.Scorer) {
	most := s.Budget / 10
	tokens, last := most, int64(0)
	for e := range s.Events(seed) {
		tokens = min(most, tokens+float64(e.At-last)*s.Budget/1e9)
		last = e.At
		kept := tokens >= 1
		if kept {
			tokens--
		}
		sc.Add(e, simulation.Outcome{Kept: kept, Weight: 1})
	}
}

var _, _ Candidate = static{}, limiter{}
