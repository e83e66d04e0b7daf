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
	Host           string        `json:"host"`
	Resync         time.Duration `json:"resync"`
	Timeout        time.Duration `json:"timeout"`
	InspectWorkers int           `json:"inspect_workers"`
	describe.FilterConfig
}

const minResync = time.Second

func configSchema(s service) schema.Block {
	left := "Left out: unix://" + s.socket + "."
	if s.variable != "" {
		left = "Left out: the environment's " + s.variable + ", else unix://" + s.socket + "."
	}
	return schema.Block{
		Doc: s.doc + " over its unix socket: what was created, as it is created, and everything that inspect tells of it.",
		Attributes: append([]schema.Attribute{
			{Name: "host", Type: schema.String, Pattern: `unix:///.+`, Opens: schema.Socket,
				Doc: "The engine's socket, as unix:///path. " + left},
			{Name: "resync", Type: schema.Duration, Default: 30 * time.Second, Min: schema.Bound(time.Duration(0)), Max: schema.Bound(time.Hour),
				Doc: "How often the list of containers is compared with what the events told; at least 1s. 0 turns it off. " +
					"The daemon drops events of a reader that was stopped for too long; this finds what they would have told."},
			{Name: "timeout", Type: schema.Duration, Default: 5 * time.Second, Min: schema.Bound(100 * time.Millisecond), Max: schema.Bound(5 * time.Minute),
				Doc: "How long one request may take, and how often a silent daemon is asked whether it is still there."},
			{Name: "inspect_workers", Type: schema.Integer, Default: int64(4), Min: schema.Bound(1), Max: schema.Bound(32),
				Doc: "How many containers are inspected at a time."},
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

// findSocket tells which socket to use: the configured one, the environment's
// or the service's own, below hostRoot when it is only there.
func findSocket(s service, configured, fromEnv, hostRoot string) (string, error) {
	host := configured
	if host == "" {
		host = fromEnv
	}
	if host == "" {
		if hostRoot != "" && hostRoot != "/" {
			// Below a mounted root /var/run is a symlink that leads out of it.
			for _, p := range []string{s.socket, path.Join(hostRoot, strings.TrimPrefix(s.socket, "/var"))} {
				if _, err := os.Stat(p); err == nil {
					return p, nil
				}
			}
		}
		return s.socket, nil
	}
	p, ok := strings.CutPrefix(host, "unix://")
	if !ok || !path.IsAbs(p) {
		return "", fmt.Errorf("use %s host %q: only unix:///path is possible; set host, or unset %s", s.name, host, s.variable)
	}
	return p, nil
}
