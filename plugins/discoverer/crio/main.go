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
		Name:     "crio",
		Version:  plugin.Version(),
		Doc:      "Finds the containers and pods of CRI-O, or of another runtime that serves CRI, from their creation on.",
		Schema:   configSchema(),
		Validate: validate,
		New: func(_ context.Context, c Config, env plugin.Env) (discover.Discoverer, error) {
			return newDiscoverer(c, os.Getenv("CONTAINER_RUNTIME_ENDPOINT"), env.Node, env.Log)
		},
	}
}
