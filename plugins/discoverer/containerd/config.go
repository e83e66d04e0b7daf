package main

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

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
	Env               bool          `json:"env"`
	LabelsInclude     []string      `json:"labels_include"`
	LabelsExclude     []string      `json:"labels_exclude"`
	LabelSize         int           `json:"label_size"`
	LabelsSize        int           `json:"labels_size"`
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
		Attributes: []schema.Attribute{
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
			{Name: "env", Type: schema.Bool, Default: false,
				Doc: "Whether to read the environment that containers are configured with. It often holds secrets."},
			{Name: "labels_include", Type: schema.String, Shape: schema.List, Default: []string{"*"},
				Doc: "Patterns of the label keys to keep. * stands for any characters, ? for one, [a-z] for one of a set."},
			{Name: "labels_exclude", Type: schema.String, Shape: schema.List, Default: []string{},
				Doc: "Patterns of the label keys to leave out, whatever labels_include says."},
			{Name: "label_size", Type: schema.Size, Default: int64(4 << 10), Min: schema.Bound(16), Max: schema.Bound(16 << 10),
				Doc: "A longer label value is cut, and ends in an ellipsis."},
			{Name: "labels_size", Type: schema.Size, Default: int64(32 << 10), Min: schema.Bound(256), Max: schema.Bound(64 << 10),
				Doc: "What all labels and annotations of one container may take, keys and values. The labels of Kubernetes and Compose come first, " +
					"then the others by key; those beyond are left out."},
		},
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
	check := func(name string, patterns []string) {
		for i, p := range patterns {
			if _, err := path.Match(crossSlashes(p), ""); err != nil {
				ds = append(ds, diag.Errorf(diag.Path{diag.Attr(name), diag.Index(i)}, "not a pattern",
					"%q cannot be read as a pattern; a bracket that is meant as such is written \\[.", p))
			}
		}
	}
	check("labels_include", c.LabelsInclude)
	check("labels_exclude", c.LabelsExclude)
	return ds
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
