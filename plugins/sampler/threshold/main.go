package main

import (
	"context"
	"os"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "fixed" {
		plugin.Serve(fixed())
	}
	plugin.Serve(threshold())
}

func fixed() plugin.Sampler[FixedConfig] {
	return plugin.Sampler[FixedConfig]{
		Name: "fixed", Version: plugin.Version(), Doc: "Keeps one share of all events.",
		Schema: fixedSchema(), Validate: validateFixed,
		New: func(_ context.Context, c FixedConfig, _ plugin.Env) (sampling.Sampler, error) {
			return fixedSampler{rate: c.Rate}, nil
		},
	}
}

func threshold() plugin.Sampler[Config] {
	return plugin.Sampler[Config]{
		Name: "threshold", Version: plugin.Version(), Doc: "Keeps a share of the events that falls in steps with their number.",
		Schema: thresholdSchema(), Validate: validateThreshold,
		New: func(_ context.Context, c Config, _ plugin.Env) (sampling.Sampler, error) { return newThreshold(c), nil },
	}
}
