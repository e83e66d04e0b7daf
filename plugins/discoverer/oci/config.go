package main

import (
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
	Roots     []string      `json:"roots"`
	Bundles   []string      `json:"bundles"`
	Proc      string        `json:"proc"`
	Resync    time.Duration `json:"resync"`
	Lifecycle string        `json:"lifecycle"`
	describe.FilterConfig
}

// Whose lifecycle is told.
const (
	lifecycleUnmanaged = "unmanaged"
	lifecycleAll       = "all"
)

const minResync = time.Second

// knownRoots are the state directories that runtimes use when nobody says otherwise.
// The manifest asks for the same.
func knownRoots() []string {
	return []string{"/run/runc", "/run/crun", "/run/youki", "/run/containerd/runc", "/run/docker/runtime-runc"}
}

func configSchema() schema.Block {
	return schema.Block{
		Doc: "Finds the containers of any OCI runtime (runc, crun, youki), with no daemon at all: by the runtime's state directories and the bundles. " +
			"Of every new cgroup it says whether it is a container's, so that containers are named whose cgroups are called like anything else.",
		Attributes: append([]schema.Attribute{
			{Name: "roots", Type: schema.String, Shape: schema.List, Default: knownRoots(), Pattern: `/.+`, Opens: schema.Path,
				Doc: "The runtimes' state directories, as their option --root has them. In containerd/runc and docker/runtime-runc each directory is a root of its own. " +
					"A list of your own stands in place of the default. What users can write to is believed only of cgroups that are theirs."},
			{Name: "bundles", Type: schema.String, Shape: schema.List, Default: []string{}, Pattern: `/.+`, Opens: schema.Path,
				Doc: "Directories in which bundles are, to read their config.json. Without, containers of runc have no args, env, user and ulimits; crun keeps a copy in its state."},
			{Name: "proc", Type: schema.String, Default: "", Pattern: `(/.+)?`, Opens: schema.Path,
				Doc: "Where the host's /proc is, usually /proc. With it a container whose first process ended is known for sure, and one without a bundle has args. " +
					"It lets the plugin see the command lines of all processes; left out: it sees none."},
			{Name: "resync", Type: schema.Duration, Default: 30 * time.Second, Min: schema.Bound(time.Duration(0)), Max: schema.Bound(time.Hour),
				Doc: "How often the state directories are compared with what is known; at least 1s. 0 turns it off: changes are told by the kernel."},
			{Name: "lifecycle", Type: schema.String, Default: lifecycleUnmanaged, Enum: []string{lifecycleUnmanaged, lifecycleAll},
				Doc: "Of which containers to tell what happens to them: unmanaged leaves out those of Docker, containerd, CRI-O and Podman, whose own discoverers tell it; all is for hosts without these."},
		}, describe.FilterAttributes()...),
	}
}

// validate finds what the schema cannot say.
func validate(c Config) diag.Diagnostics {
	var ds diag.Diagnostics
	for _, list := range []struct {
		name  string
		paths []string
	}{{"roots", c.Roots}, {"bundles", c.Bundles}, {"proc", []string{c.Proc}}} {
		for i, p := range list.paths {
			at := diag.Path{diag.Attr(list.name)}
			if list.name != "proc" {
				at = append(at, diag.Index(i))
			}
			switch {
			case p != "" && path.Clean(p) != p:
				ds = append(ds, diag.Errorf(at, "not a clean path", "Write %s, without empty elements, . and .. in it.", path.Clean(p)))
			case p != "" && slices.Contains(list.paths[:i], p):
				ds = append(ds, diag.Errorf(at, "named twice", "%s stands in the list already; take one of the two out.", p))
			}
		}
	}
	if len(c.Roots) == 0 {
		ds = append(ds, diag.Errorf(diag.Path{diag.Attr("roots")}, "no state directory", "Without one no container can be found; leave roots out for the well-known ones."))
	}
	if c.Resync != 0 && c.Resync < minResync {
		ds = append(ds, diag.Errorf(diag.Path{diag.Attr("resync")}, "resync is too short",
			"%s would read all state without a pause; use 0 to turn it off, or at least %s.", c.Resync, minResync))
	}
	return append(ds, describe.ValidateFilter(c.FilterConfig)...)
}

// place is where a root may be.
type place struct {
	path string // as the plugin sees it
	name string // as the host does, without the place where its root is mounted
	own  bool   // the operator named it
}

// places are where to look for roots: as they are written and, for the well-known ones,
// below the host's root directory when that is mounted somewhere.
func (c Config) places(hostRoot string) []place {
	var out []place
	for _, p := range c.Roots {
		known := slices.Contains(knownRoots(), p)
		name := p
		if rest, ok := strings.CutPrefix(p, strings.TrimSuffix(hostRoot, "/")+"/"); ok && hostRoot != "" {
			name = "/" + rest
		}
		if known && hostRoot != "" && hostRoot != "/" {
			out = append(out, place{path: path.Join(hostRoot, p), name: p})
		}
		out = append(out, place{path: p, name: name, own: !known})
	}
	return out
}
