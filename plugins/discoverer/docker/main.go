package main

import (
	"context"
	"os"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
)

func main() { plugin.Serve(definition(serviceOf(os.Args[1:]))) }

// service is one of the engines that speak Docker's API, each a discoverer of its own: a
// host may have both.
type service struct {
	name     string // of the discoverer and of the runtime
	doc      string
	socket   string // where it is unless the operator says otherwise
	variable string // of the environment, which names another; "": none does
}

func docker() service {
	return service{"docker", "Finds the containers of a Docker daemon, or of Podman's compatible service,", "/var/run/docker.sock", "DOCKER_HOST"}
}

func podman() service {
	return service{"podman", "Finds the containers of Podman, by its service that is compatible with Docker's,", "/run/podman/podman.sock", ""}
}

// serviceOf is what the arguments in a manifest say.
func serviceOf(args []string) service {
	if len(args) > 0 && args[0] == "podman" {
		return podman()
	}
	return docker()
}

func definition(s service) plugin.Discoverer[Config] {
	return plugin.Discoverer[Config]{
		Name:     s.name,
		Version:  plugin.Version(),
		Doc:      s.doc + " from their creation on.",
		Schema:   configSchema(s),
		Validate: validate,
		New: func(_ context.Context, c Config, env plugin.Env) (discover.Discoverer, error) {
			named := ""
			if s.variable != "" {
				named = os.Getenv(s.variable)
			}
			return newDiscoverer(s, c, named, env.Node, env.Log)
		},
	}
}
