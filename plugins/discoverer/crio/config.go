package main

import (
	"fmt"
	"os"
	"path"
	"strings"
	"time"

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
	Env            bool          `json:"env"`
	LabelsInclude  []string      `json:"labels_include"`
	LabelsExclude  []string      `json:"labels_exclude"`
	LabelSize      int           `json:"label_size"`
	LabelsSize     int           `json:"labels_size"`
}

const (
	defaultSocket = "/var/run/crio/crio.sock"
	minResync     = time.Second
)

func configSchema() schema.Block {
	return schema.Block{
		Doc: "Finds the containers and pods of CRI-O, or of any other runtime that serves the Kubernetes container runtime interface (CRI v1), over its unix socket: " +
			"what was created, as it is created, and everything that its status tells.",
		Attributes: []schema.Attribute{
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
