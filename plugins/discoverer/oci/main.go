package main

import (
	"context"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
)

func main() { plugin.Serve(definition()) }

func definition() plugin.Discoverer[Config] {
	return plugin.Discoverer[Config]{
		Name:     "oci",
		Version:  plugin.Version(),
		Doc:      "Finds the containers of any OCI runtime by its state directories, without a daemon.",
		Schema:   configSchema(),
		Validate: validate,
		New: func(_ context.Context, c Config, env plugin.Env) (discover.Discoverer, error) {
			return newDiscoverer(c, env.Node, env.Log), nil
		},
	}
}
