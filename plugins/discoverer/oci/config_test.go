package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/conformance"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

func TestTheConfigurationIsChecked(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"the defaults", func(*Config) {}, "[]"},
		{"no resync", func(c *Config) { c.Resync = 0 }, "[]"},
		{"a resync without a pause", func(c *Config) { c.Resync = time.Millisecond }, "[resync: resync is too short]"},
		{"no root", func(c *Config) { c.Roots = nil }, "[roots: no state directory]"},
		{"paths that are not clean", func(c *Config) { c.Roots, c.Bundles, c.Proc = []string{"/a", "/b/../c"}, []string{"/d/"}, "/proc/" },
			"[roots[1]: not a clean path bundles[0]: not a clean path proc: not a clean path]"},
		{"a root twice", func(c *Config) { c.Roots = []string{"/a", "/a"} }, "[roots[1]: named twice]"},
		{"broken patterns", func(c *Config) { c.LabelsInclude = []string{"a", "["} }, "[labels_include[1]: not a pattern]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := defaults(knownRoots()...)
			tt.change(&c)
			got := []string{}
			for _, d := range validate(c) {
				got = append(got, d.Path.String()+": "+d.Summary)
			}
			if fmt.Sprint(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	s := configSchema()
	if err := schema.Check(s); err != nil {
		t.Error(err)
	}
	for _, a := range s.Attributes {
		if a.Doc == "" {
			t.Errorf("%s has no documentation", a.Name)
		}
	}
}

// What is looked at by default is what the manifest asks for.
func TestTheManifestAsksForTheDefaults(t *testing.T) {
	raw, err := os.ReadFile("oci.plugin.hcl")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(knownRoots(), "/sys/fs/cgroup") {
		if !strings.Contains(string(raw), fmt.Sprintf("%q", p)) {
			t.Errorf("it does not ask for %s", p)
		}
	}
}

func TestARuntimeIsDetectedByItsContainers(t *testing.T) {
	host := t.TempDir()
	detect := func(c Config) (string, error) {
		return newDiscoverer(c, &protov1.Node{HostRoot: host}, testLog(t)).Detect(t.Context())
	}
	c := defaults("/run/runc", "/run/containerd/runc")
	absent := func(what string, c Config, words ...string) {
		t.Helper()
		detail, err := detect(c)
		if !errors.Is(err, discover.ErrAbsent) {
			t.Errorf("%s: %v", what, err)
		}
		for _, w := range words {
			if !strings.Contains(detail, w) {
				t.Errorf("%s: the detail lacks %q: %s", what, w, detail)
			}
		}
	}
	here := func(what string, c Config, words ...string) {
		t.Helper()
		detail, err := detect(c)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for _, w := range words {
			if !strings.Contains(detail, w) {
				t.Errorf("%s: the detail lacks %q: %s", what, w, detail)
			}
		}
	}
	// The machine's own roots are looked at too.
	if _, err := os.Stat("/run/runc"); err == nil {
		c.Roots = c.Roots[1:]
	}
	absent("there is no root", c, "no "+host+"/run/containerd/runc")
	mkdir(t, host, "run/containerd/runc/default")
	absent("there is no container", c, "0 containers in "+host+"/run/containerd/runc/default")
	lay(t, host, map[string]string{"run/containerd/runc/default/web/state.json": ofRunc})
	absent("there is one that containerd manages", c, "1 containers in "+host+"/run/containerd/runc/default")
	managed := c
	managed.Lifecycle = lifecycleAll
	here("there is one, and nobody else to tell of it", managed, "1 containers in "+host+"/run/containerd/runc/default")
	c.Roots = append(c.Roots, "/run/youki")
	mkdir(t, host, "run/youki/empty")
	absent("there is a directory without a state", c, "0 containers in "+host+"/run/youki")
	lay(t, host, map[string]string{"run/youki/web/state.json": ofRunc})
	here("there is one", c, "1 containers in "+host+"/run/youki")
	own := t.TempDir()
	here("a root that the operator named", defaults(own), "0 containers in "+own)
	absent("one that is not there", defaults(own+"/none"), "no "+own+"/none")
}

func TestItKeepsTheContract(t *testing.T) {
	root := t.TempDir()
	lay(t, root, map[string]string{"web/state.json": ofRunc, "db/state.json": at("/db"), "broken/state.json": "{", "new/x": ""})
	conformance.Discoverer(t, definition(), conformance.Options{
		Config: map[string]any{"roots": []string{root}},
		Refused: map[string]any{
			"a resync without a pause": map[string]any{"resync": time.Millisecond},
			"a broken pattern":         map[string]any{"labels_include": []string{"["}},
			"no root":                  map[string]any{"roots": []string{}},
		},
	})
}

func TestItKeepsTheContractWithoutARuntime(t *testing.T) {
	conformance.Discoverer(t, definition(), conformance.Options{
		Config: map[string]any{"roots": []string{t.TempDir() + "/none"}},
		Absent: true,
	})
}
