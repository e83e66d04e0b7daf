package main

import (
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Config is the checked configuration, as the schema below describes it.
type Config struct {
	Endpoint       string        `json:"endpoint"`
	Poll           time.Duration `json:"poll"`
	Resync         time.Duration `json:"resync"`
	Timeout        time.Duration `json:"timeout"`
	InspectWorkers int           `json:"inspect_workers"`
	describe.FilterConfig
}

const (
	defaultSocket = "/var/run/crio/crio.sock"
	minResync     = time.Second
)

func configSchema() schema.Block {
	return schema.Block{
		Doc: "Finds the containers and pods of CRI-O, or of any other runtime that serves the Kubernetes container runtime interface (CRI v1), over its unix socket: " +
			"what was created, as it is created, and everything that its status tells.",
		Attributes: append([]schema.Attribute{
			{Name: "endpoint", Type: schema.String, Pattern: `unix:///.+`, Opens: schema.Socket,
				Doc: "The runtime's socket, as unix:///path. Left out: the environment's CONTAINER_RUNTIME_ENDPOINT, else unix://" + defaultSocket + "."},
			{Name: "poll", Type: schema.Duration, Default: time.Second, Min: schema.Bound(100 * time.Millisecond), Max: schema.Bound(time.Minute),
				Doc: "How often all is listed when the runtime sends no events: CRI-O does with enable_pod_events = true, containerd from 1.7 on."},
			{Name: "resync", Type: schema.Duration, Default: 30 * time.Second, Min: schema.Bound(time.Duration(0)), Max: schema.Bound(time.Hour),
				Doc: "How often the list of containers is compared with what the events told; at least 1s. 0 turns it off. " +
					"The runtime drops events of a reader that was stopped for too long, and tells of changed limits not at all; this finds both."},
			{Name: "timeout", Type: schema.Duration, Default: 5 * time.Second, Min: schema.Bound(100 * time.Millisecond), Max: schema.Bound(5 * time.Minute),
				Doc: "How long one request may take, and how often a silent runtime is asked whether it is still there."},
			{Name: "inspect_workers", Type: schema.Integer, Default: int64(4), Min: schema.Bound(1), Max: schema.Bound(32),
				Doc: "How many containers are asked for at a time."},
		}, describe.FilterAttributes()...),
	}
}

// validate finds what the schema cannot say.
func validate(c Config) diag.Diagnostics {
	var ds diag.Diagnostics
	if c.Resync != 0 && c.Resync < minResync {
		ds = append(ds, diag.Errorf(diag.Path{diag.Attr("resync")}, "resync is too short",
			"%s would list all containers without a pause; use 0 to turn it off, or at least %s.", c.Resync, minResync))
	}
	return append(ds, describe.ValidateFilter(c.FilterConfig)...)
}

// findSocket tells which socket to use: the configured one, the environment's or the
// default, below hostRoot when it is only there.
func findSocket(configured, fromEnv, hostRoot string) (string, error) {
	endpoint := configured
	if endpoint == "" {
		endpoint = fromEnv
	}
	if endpoint == "" {
		if hostRoot != "" && hostRoot != "/" {
			// Below a mounted root /var/run is a symlink that leads out of it.
			for _, p := range []string{defaultSocket, path.Join(hostRoot, "run/crio/crio.sock")} {
				if _, err := os.Stat(p); err == nil {
					return p, nil
				}
			}
		}
		return defaultSocket, nil
	}
	p, ok := strings.CutPrefix(endpoint, "unix://")
	if !ok || !path.IsAbs(p) {
		return "", fmt.Errorf("use runtime endpoint %q: only unix:///path is possible; set endpoint, or unset CONTAINER_RUNTIME_ENDPOINT", endpoint)
	}
	return p, nil
}
