package main

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Config is the checked configuration, as the schema below describes it.
type Config struct {
	Address           string        `json:"address"`
	Namespaces        []string      `json:"namespaces"`
	NamespacesExclude []string      `json:"namespaces_exclude"`
	Resync            time.Duration `json:"resync"`
	Timeout           time.Duration `json:"timeout"`
	describe.FilterConfig
}

func (c *Config) scope() scope { return scope{only: c.Namespaces, except: c.NamespacesExclude} }

const (
	defaultSocket = "/run/containerd/containerd.sock"
	minResync     = time.Second
	// identifier is what containerd takes for a namespace.
	identifier = `[A-Za-z0-9]+([._-][A-Za-z0-9]+)*`
)

func configSchema() schema.Block {
	return schema.Block{
		Doc: "Finds the containers of containerd over its unix socket, in all of its namespaces: what was created, as it is created, " +
			"and all that containerd keeps of it.",
		Attributes: append([]schema.Attribute{
			{Name: "address", Type: schema.String, Pattern: `unix:///.+`, Opens: schema.Socket,
				Doc: "containerd's socket, as unix:///path. Left out: the environment's CONTAINERD_ADDRESS, else unix://" + defaultSocket + "."},
			{Name: "namespaces", Type: schema.String, Shape: schema.List, Default: []string{}, Pattern: identifier,
				Doc: "The namespaces to follow, such as default or k8s.io. Empty: all, also those that come later."},
			{Name: "namespaces_exclude", Type: schema.String, Shape: schema.List, Default: []string{}, Pattern: identifier,
				Doc: "Namespaces not to follow."},
			{Name: "resync", Type: schema.Duration, Default: 5 * time.Minute, Min: schema.Bound(time.Duration(0)), Max: schema.Bound(24 * time.Hour),
				Doc: "How often the list of containers is compared with what the events told; at least 1s. 0 turns it off. " +
					"Events of a container's processes come from its shim, which gives up after some tries; this finds what they would have told."},
			{Name: "timeout", Type: schema.Duration, Default: 5 * time.Second, Min: schema.Bound(100 * time.Millisecond), Max: schema.Bound(5 * time.Minute),
				Doc: "How long one request may take, and how often a silent containerd is asked whether it is still there."},
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
	for i, n := range c.Namespaces {
		if slices.Contains(c.NamespacesExclude, n) {
			ds = append(ds, diag.Errorf(diag.Path{diag.Attr("namespaces"), diag.Index(i)}, "excluded as well",
				"Namespace %q is in namespaces_exclude too; take it out of one of the two.", n))
		}
	}
	return append(ds, describe.ValidateFilter(c.FilterConfig)...)
}

// findSocket tells which socket to use: the configured one, the environment's or the
// default, below hostRoot when it is only there.
func findSocket(configured, fromEnv, hostRoot string) (string, error) {
	address := configured
	if address == "" {
		address = fromEnv
	}
	if address == "" {
		if hostRoot != "" && hostRoot != "/" {
			for _, p := range []string{defaultSocket, path.Join(hostRoot, defaultSocket)} {
				if _, err := os.Stat(p); err == nil {
					return p, nil
				}
			}
		}
		return defaultSocket, nil
	}
	p := strings.TrimPrefix(address, "unix://") // ctr's variable has the path alone
	if !path.IsAbs(p) {
		return "", fmt.Errorf("use containerd address %q: only unix:///path is possible; set address, or unset CONTAINERD_ADDRESS", address)
	}
	return p, nil
}
