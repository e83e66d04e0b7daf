package main

import (
	"context"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/mesh"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
)

func main() { plugin.Serve(definition()) }

func definition() plugin.Detector[Config] {
	return plugin.Detector[Config]{
		Name:     "generic",
		Version:  plugin.Version(),
		Doc:      "Recognises the sidecars of service meshes by image, name, ports and labels.",
		Schema:   configSchema(),
		Validate: validate,
		New: func(_ context.Context, c Config, _ plugin.Env) (mesh.Detector, error) {
			return genericDetector{config: c}, nil
		},
	}
}
