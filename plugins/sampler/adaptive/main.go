package main

import (
	"context"
	"os"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "predictive" {
		plugin.Serve(predicting())
	}
	plugin.Serve(adaptive())
}

func adaptive() plugin.Sampler[Config] {
	return plugin.Sampler[Config]{
		Name: "adaptive", Version: plugin.Version(), Doc: "Spends a budget of events where they tell most.",
		Schema: adaptiveSchema(),
		New:    func(_ context.Context, c Config, _ plugin.Env) (sampling.Sampler, error) { return newSampler(c), nil },
	}
}

func predicting() plugin.Sampler[Config] {
	return plugin.Sampler[Config]{
		Name: "predictive", Version: plugin.Version(), Doc: "Spends a budget of events where they will tell most, by a forecast of the load.",
		Schema: predictiveSchema(), Validate: validatePredictive,
		New: func(_ context.Context, c Config, _ plugin.Env) (sampling.Sampler, error) {
			return newPredictive(c), nil
		},
	}
}
