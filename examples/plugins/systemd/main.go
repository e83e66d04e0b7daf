// Command systemd is the discoverer of systemd's units: services, and scopes if
// asked for, as workloads of their own. It is started by the daemon, never by hand.
//
// It exists to show that a runtime needs no daemon to be asked: systemd runs each unit
// in a control group that is named after it, and the daemon tells a discoverer of every
// control group before a process runs in it. The plugin owns what it makes of these
// names and nothing else; it must never open a connection, and reads nothing but whether
// /run/systemd/system is there.
package main

import (
	"context"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
)

const about = "Units of systemd as workloads, told by their control groups alone: no connection to systemd, and no rights."

func main() { plugin.Serve(definition()) }

func definition() plugin.Discoverer[Config] {
	return plugin.Discoverer[Config]{
		Name: "systemd", Version: plugin.Version(), Doc: about,
		Schema: configSchema(), Validate: validate,
		New: func(_ context.Context, c Config, env plugin.Env) (discover.Discoverer, error) {
			return &systemd{config: c, node: env.Node, log: env.Log}, nil
		},
	}
}
