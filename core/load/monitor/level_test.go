package monitor

import (
	"math"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func none() Shares { return SharesOf(&protov1.HostLoad{}) }

func with(s map[Resource]float64) Shares {
	out := none()
	for r, v := range s {
		out[r] = v
	}
	return out
}

func TestTheHighestResourceDecidesOnTheLevel(t *testing.T) {
	nothing := math.NaN()
	for name, c := range map[string]struct {
		shares map[Resource]float64
		level  Level
		says   string
	}{
		"nothing is told":                       {nil, Low, "cpu"},
		"all are low, and the nearest is named": {map[Resource]float64{CPU: 0.3, Memory: 0.5, Ring: 0.01}, Low, "memory 50 %"},
		"just below":                            {map[Resource]float64{CPU: 0.5999}, Low, "cpu 60 %"},
		"at a bound":                            {map[Resource]float64{CPU: 0.60}, Medium, "cpu 60 %"},
		"cpu is high":                           {map[Resource]float64{CPU: 0.91, Memory: 0.8}, High, "cpu 91 %"},
		"cpu is critical":                       {map[Resource]float64{CPU: 0.96}, Critical, "cpu 96 %"},
		"a small pressure is worse than a big cpu": {map[Resource]float64{CPU: 0.94, PressureMemory: 0.31}, Critical, "memory pressure 31 %"},
		"of two that are high, the further":        {map[Resource]float64{CPU: 0.81, PressureIO: 0.60}, High, "io pressure 60 %"},
		"a disk is never critical":                 {map[Resource]float64{Disk: 1}, High, "disk 100 %"},
		"the ring fills":                           {map[Resource]float64{Ring: 0.8, Queue: 0.5}, Critical, "ring 80 %"},
		"a queue fills":                            {map[Resource]float64{Ring: 0.1, Queue: 0.5}, High, "queue 50 %"},
		"what is not told is not high":             {map[Resource]float64{CPU: nothing, Network: 0.61}, Medium, "network 61 %"},
	} {
		t.Run(name, func(t *testing.T) {
			got := DefaultThresholds().Assess(with(c.shares))
			if got.Level != c.level || got.String() != c.says {
				t.Errorf("%v by %q, want %v by %q", got.Level, got, c.level, c.says)
			}
		})
	}
}

func TestThresholdsAreOverriddenOneByOne(t *testing.T) {
	bounds := DefaultThresholds()
	bounds[CPU] = Bounds{High: 0.5}
	bounds[Memory] = Bounds{}
	for _, c := range []struct {
		resource Resource
		share    float64
		want     Level
	}{{CPU, 0.49, Low}, {CPU, 0.5, High}, {CPU, 1, High}, {Memory, 1, Low}, {Disk, 0.6, Medium}} {
		if got := bounds.Assess(with(map[Resource]float64{c.resource: c.share})).Level; got != c.want {
			t.Errorf("%v %v: %v, want %v", c.resource, c.share, got, c.want)
		}
	}
}

func TestALevelBeginsAtOnceAndEndsSlowly(t *testing.T) {
	type step struct {
		at    float64 // seconds
		cpu   float64
		level Level
	}
	nothing := math.NaN()
	for name, steps := range map[string][]step{
		"up at once, two levels at a time": {{0, 0.1, Low}, {0.25, 0.99, Critical}},
		"down after 5 s below 72 %": {
			{0, 0.81, High}, {1, 0.71, High}, {5.9, 0.71, High}, {6, 0.71, Medium},
		},
		"a share a little below keeps the level":    {{0, 0.81, High}, {1, 0.75, High}, {60, 0.73, High}},
		"a share that comes near again starts anew": {{0, 0.81, High}, {1, 0.5, High}, {5, 0.73, High}, {6, 0.5, High}, {10.9, 0.5, High}, {11, 0.5, Low}},
		"down by as much as it was below":           {{0, 0.99, Critical}, {1, 0.1, Critical}, {6, 0.1, Low}},
		"down step by step": {
			{0, 0.99, Critical}, {1, 0.80, Critical}, {6, 0.80, High}, {7, 0.60, High}, {12, 0.60, Medium},
		},
		"one reading long after is not 5 s below": {{0, 0.81, High}, {60, 0.1, High}, {64.9, 0.1, High}, {65, 0.1, Low}},
		"what is told no more is below":           {{0, 0.81, High}, {1, nothing, High}, {6, nothing, Low}},
	} {
		t.Run(name, func(t *testing.T) {
			g := gauge{thresholds: DefaultThresholds()}
			for _, s := range steps {
				now := start.Add(time.Duration(s.at * float64(time.Second)))
				if got := g.observe(now, with(map[Resource]float64{CPU: s.cpu})); got.Level != s.level {
					t.Errorf("after %v s at %v: %v, want %v", s.at, s.cpu, got.Level, s.level)
				}
			}
		})
	}
}

func TestALevelSaysSinceWhenAndBecauseOfWhat(t *testing.T) {
	g := gauge{thresholds: DefaultThresholds()}
	at := func(seconds float64, s map[Resource]float64) State {
		return g.observe(start.Add(time.Duration(seconds*float64(time.Second))), with(s))
	}
	at(0, map[Resource]float64{CPU: 0.1})
	at(1, map[Resource]float64{CPU: 0.85})
	got := at(2, map[Resource]float64{CPU: 0.1, PressureIO: 0.5}) // another takes over
	if got.Level != High || got.String() != "io pressure 50 %" || !got.Since.Equal(start.Add(time.Second)) {
		t.Errorf("%v by %q since %v", got.Level, got, got.Since)
	}
	if got := at(3, nil); got.Level != High || got.String() != "cpu" {
		t.Errorf("held without being told: %v by %q", got.Level, got)
	}
}
