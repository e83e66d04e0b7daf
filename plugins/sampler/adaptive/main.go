package main

import (
	"context"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
)

func main() { plugin.Serve(adaptive()) }

func adaptive() plugin.Sampler[Config] {
	return plugin.Sampler[Config]{
		Name: "adaptive", Version: plugin.Version(), Doc: "Spends a budget of events where they tell most.",
		Schema: adaptiveSchema(),
		New:    func(_ context.Context, c Config, _ plugin.Env) (sampling.Sampler, error) { return newSampler(c), nil },
	}
}

// Interval at which reports come.
func (s *sampler) Interval() time.Duration { return s.config.Interval }
