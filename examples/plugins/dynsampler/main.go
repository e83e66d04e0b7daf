// Command dynsampler is the sampler that lets dynsampler-go, the library by which
// Honeycomb's Refinery samples, choose the rate of each class of events. It is started by
// the daemon, never by hand.
//
// It exists to show that a sampler may be somebody else's: the plugin hands the library
// the counts of each report and the daemon the rates that it answers, and decides nothing
// itself. It owns the library's sampler and the rates last answered; it does no I/O.
package main

import (
	"context"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
)

func main() { plugin.Serve(definition()) }

func definition() plugin.Sampler[Config] {
	return plugin.Sampler[Config]{
		Name: "dynsampler", Version: plugin.Version(),
		Doc:    "Rates for each class of events by dynsampler-go: rare events are kept, frequent ones thinned out until the whole meets a goal.",
		Schema: configSchema(), Validate: validate,
		New: func(ctx context.Context, c Config, env plugin.Env) (sampling.Sampler, error) {
			return newSampler(ctx, c, env.Log)
		},
	}
}
