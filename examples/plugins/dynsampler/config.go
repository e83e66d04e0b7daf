package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Config is the checked configuration. A pointer that is nil was not written.
type Config struct {
	Strategy       string         `json:"strategy"`
	GoalThroughput *int           `json:"goal_throughput"`
	GoalSampleRate *int           `json:"goal_sample_rate"`
	Interval       time.Duration  `json:"interval"`
	Weight         *float64       `json:"weight"`
	BurstMultiple  *float64       `json:"burst_multiple"`
	Lookback       *time.Duration `json:"lookback"`
	Key            string         `json:"key"`
}

// What keys are made of.
const (
	byClass = "class"
	byKind  = "kind"
)

func configSchema() schema.Block {
	const million = 1_000_000
	return schema.Block{
		Doc: "Asks dynsampler-go how many events of each class one that is kept stands for. Critical events are always kept, and do not count.",
		Attributes: []schema.Attribute{
			{Name: "strategy", Type: schema.String, Default: "ema_throughput", Enum: slices.Sorted(maps.Keys(strategies)),
				Doc: "The library's sampler. ema_throughput and ema_sample_rate follow a moving average of the load, and a burst at once; avg_sample_rate looks at the last interval alone. " +
					"All three favour rare classes. total_throughput gives each class the same share of the goal, windowed_throughput does so over a longer time, and per_key_throughput gives each class the goal for itself."},
			{Name: "goal_throughput", Type: schema.Integer, Min: schema.Bound(1), Max: schema.Bound(100 * million),
				Doc: "Events a second that are to be kept: of all classes together, or of each with per_key_throughput. Every strategy that ends in throughput needs it."},
			{Name: "goal_sample_rate", Type: schema.Integer, Min: schema.Bound(1), Max: schema.Bound(million),
				Doc: "How many events one that is kept is to stand for on average. Every strategy that ends in sample_rate needs it."},
			{Name: "interval", Type: schema.Duration, Default: 5 * time.Second, Min: schema.Bound(time.Second), Max: schema.Bound(5 * time.Minute),
				Doc: "How often rates are calculated anew. A class that has seen nothing for as long is kept whole."},
			{Name: "weight", Type: schema.Number, Min: schema.Bound(0.01), Max: schema.Bound(0.99),
				Doc: "How much the last interval counts in the moving average of ema_throughput and ema_sample_rate; 0.5 when it is left out."},
			{Name: "burst_multiple", Type: schema.Number, Min: schema.Bound(1), Max: schema.Bound(1000),
				Doc: "A load of as many times the moving average has the rates of ema_throughput and ema_sample_rate calculated at once; 2 when it is left out."},
			{Name: "lookback", Type: schema.Duration, Min: schema.Bound(time.Second), Max: schema.Bound(time.Hour),
				Doc: "The time that windowed_throughput looks back on: a multiple of interval; 30 intervals when it is left out."},
			{Name: "key", Type: schema.String, Default: byClass, Enum: []string{byClass, byKind},
				Doc: "What has a rate of its own: each class, which is a kind and a priority, or each kind of events."},
		},
	}
}

// validate checks what belongs together.
func validate(c Config) diag.Diagnostics {
	var ds diag.Diagnostics
	wrong := func(name, summary, format string, args ...any) {
		ds = append(ds, diag.Errorf(diag.Path{diag.Attr(name)}, summary, format, args...))
	}
	s, ok := strategies[c.Strategy]
	if !ok {
		wrong("strategy", "no such strategy", "The library has no %q.", c.Strategy)
		return ds
	}
	for _, a := range []struct {
		name         string
		set          bool
		takes, needs bool
	}{
		{"goal_throughput", c.GoalThroughput != nil, s.throughput, true},
		{"goal_sample_rate", c.GoalSampleRate != nil, !s.throughput, true},
		{"weight", c.Weight != nil, s.ema, false},
		{"burst_multiple", c.BurstMultiple != nil, s.ema, false},
		{"lookback", c.Lookback != nil, s.window, false},
	} {
		switch {
		case a.set && !a.takes:
			wrong(a.name, "not of this strategy", "%s has no %s: leave it out, or choose another strategy.", c.Strategy, a.name)
		case !a.set && a.takes && a.needs:
			wrong("strategy", fmt.Sprintf("%s is missing", a.name), "%s needs %s.", c.Strategy, a.name)
		}
	}
	if s.window && c.Lookback != nil && c.Interval > 0 && (*c.Lookback < c.Interval || *c.Lookback%c.Interval != 0) {
		wrong("lookback", "not a multiple", "%s is no multiple of the interval, %s.", *c.Lookback, c.Interval)
	}
	if s.seconds && c.Interval%time.Second != 0 {
		wrong("interval", "not whole seconds", "%s counts in whole seconds; %s is none.", c.Strategy, c.Interval)
	}
	return ds
}
