package main

import (
	"time"

	dynsampler "github.com/honeycombio/dynsampler-go"
)

// strategy is one of the library's samplers.
type strategy struct {
	throughput bool // its goal is one; else it is a sample rate
	ema        bool // it has a moving average
	window     bool // it looks back on several intervals
	seconds    bool // its interval is cut to whole seconds
	make       func(Config) dynsampler.Sampler
}

// strategies by the name that they have in a configuration. Where the configuration
// leaves something out the library's default holds, for which it takes a zero.
var strategies = map[string]strategy{
	"ema_throughput": {throughput: true, ema: true, make: func(c Config) dynsampler.Sampler {
		return &dynsampler.EMAThroughput{
			GoalThroughputPerSec: value(c.GoalThroughput), AdjustmentInterval: c.Interval,
			Weight: value(c.Weight), BurstMultiple: value(c.BurstMultiple), InitialSampleRate: 1,
		}
	}},
	"ema_sample_rate": {ema: true, make: func(c Config) dynsampler.Sampler {
		return &dynsampler.EMASampleRate{
			GoalSampleRate: value(c.GoalSampleRate), AdjustmentIntervalDuration: c.Interval,
			Weight: value(c.Weight), BurstMultiple: value(c.BurstMultiple),
		}
	}},
	"avg_sample_rate": {make: func(c Config) dynsampler.Sampler {
		return &dynsampler.AvgSampleRate{GoalSampleRate: value(c.GoalSampleRate), ClearFrequencyDuration: c.Interval}
	}},
	"total_throughput": {throughput: true, make: func(c Config) dynsampler.Sampler {
		return &dynsampler.TotalThroughput{GoalThroughputPerSec: value(c.GoalThroughput), ClearFrequencyDuration: c.Interval}
	}},
	"per_key_throughput": {throughput: true, seconds: true, make: func(c Config) dynsampler.Sampler {
		return &dynsampler.PerKeyThroughput{PerKeyThroughputPerSec: value(c.GoalThroughput), ClearFrequencyDuration: c.Interval}
	}},
	"windowed_throughput": {throughput: true, window: true, make: func(c Config) dynsampler.Sampler {
		return &dynsampler.WindowedThroughput{
			GoalThroughputPerSec: float64(value(c.GoalThroughput)), UpdateFrequencyDuration: c.Interval,
			LookbackFrequencyDuration: value(c.Lookback),
		}
	}},
}

func value[T int | float64 | time.Duration](p *T) T {
	if p == nil {
		return 0
	}
	return *p
}
