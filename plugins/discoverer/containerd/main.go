package main

import (
	"context"
	"os"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
)

func main() { plugin.Serve(definition()) }

func definition() plugin.Discoverer[Config] {
	return plugin.Discoverer[Config]{
		Name:     "containerd",
		Version:  plugin.Version(),
		Doc:      "Finds the containers of containerd, in all of its namespaces, from their creation on.",
		Schema:   configSchema(),
		Validate: validate,
		New: func(_ context.Context, c Config, env plugin.Env) (discover.Discoverer, error) {
			return newDiscoverer(c, os.Getenv("CONTAINERD_ADDRESS"), env.Node, env.Log)
		},
	}
}
