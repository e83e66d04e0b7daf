package config_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// parser has a known environment and host.
func parser(env map[string]string) config.Parser {
	return config.Parser{
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		Hostname:  func() (string, error) { return "host-1", nil },
	}
}

// schemas are those of the shipped plugins, as far as tests use them, and of
// plugins that show what no shipped plugin has.
func schemas() map[string]schema.Block {
	rate := func(name string, def any) schema.Attribute {
		return schema.Attribute{Name: name, Type: schema.Number, Required: def == nil, Default: def, Min: schema.Bound(0), Max: schema.Bound(1)}
	}
	return map[string]schema.Block{
		`discoverer "docker"`: {Attributes: []schema.Attribute{
			{Name: "host", Type: schema.String, Pattern: `unix:///.+`, Opens: schema.Socket},
			{Name: "resync", Type: schema.Duration, Default: 30 * time.Second, Min: schema.Bound(0), Max: schema.Bound(time.Hour)},
			{Name: "timeout", Type: schema.Duration, Default: 5 * time.Second, Min: schema.Bound(100 * time.Millisecond), Max: schema.Bound(5 * time.Minute)},
			{Name: "inspect_workers", Type: schema.Integer, Default: int64(4), Min: schema.Bound(1), Max: schema.Bound(32)},
			{Name: "env", Type: schema.Bool, Default: false},
			{Name: "labels_include", Type: schema.String, Shape: schema.List, Default: []string{"*"}},
			{Name: "labels_exclude", Type: schema.String, Shape: schema.List, Default: []string{}},
			{Name: "label_size", Type: schema.Size, Default: int64(4 << 10), Min: schema.Bound(16), Max: schema.Bound(64 << 10)},
			{Name: "labels_size", Type: schema.Size, Default: int64(32 << 10), Min: schema.Bound(0), Max: schema.Bound(256 << 10)},
		}},
		`discoverer "crio"`: {Attributes: []schema.Attribute{
			{Name: "endpoint", Type: schema.String, Pattern: `unix:///.+`, Opens: schema.Socket},
		}},
		`discoverer "containerd"`: {Attributes: []schema.Attribute{
			{Name: "address", Type: schema.String, Pattern: `unix:///.+`, Opens: schema.Socket},
			{Name: "namespaces", Type: schema.String, Shape: schema.List, Default: []string{}},
		}},
		`mesh "generic"`: {
			Attributes: []schema.Attribute{
				{Name: "min_confidence", Type: schema.Number, Default: 0.5, Min: schema.Bound(0.1), Max: schema.Bound(1)},
				{Name: "builtin", Type: schema.Bool, Default: true},
			},
			Blocks: []schema.NestedBlock{{Name: "sidecar", MaxItems: 64, Block: schema.Block{Attributes: []schema.Attribute{
				{Name: "mesh", Type: schema.String, Required: true},
				{Name: "proxy", Type: schema.String, Required: true},
				{Name: "images", Type: schema.String, Shape: schema.List, Default: []string{}},
				{Name: "names", Type: schema.String, Shape: schema.List, Default: []string{}},
				{Name: "ports", Type: schema.Integer, Shape: schema.List, Default: []int64{}, Min: schema.Bound(1), Max: schema.Bound(65535)},
				{Name: "labels", Type: schema.String, Shape: schema.Map, Default: map[string]string{}},
			}}}},
		},
		`sampler "threshold"`: {
			Attributes: []schema.Attribute{
				rate("above_max_rate", 0.20),
				rate("above_min_rate", 0.01),
				{Name: "smoothing", Type: schema.Duration, Default: time.Second, Min: schema.Bound(0), Max: schema.Bound(5 * time.Minute)},
				{Name: "hysteresis", Type: schema.Number, Default: 0.1, Min: schema.Bound(0), Max: schema.Bound(0.9)},
			},
			Blocks: []schema.NestedBlock{{Name: "level", MaxItems: 32, Block: schema.Block{Attributes: []schema.Attribute{
				{Name: "below", Type: schema.Number, Required: true, Min: schema.Bound(1)},
				rate("rate", nil),
			}}}},
		},
		`sampler "fixed"`:    {Attributes: []schema.Attribute{rate("rate", nil)}},
		`sampler "adaptive"`: {Attributes: []schema.Attribute{rate("min_rate", 0.0)}},
		// What no shipped plugin has.
		`mesh "vault"`: {
			Attributes: []schema.Attribute{
				{Name: "address", Type: schema.String, Required: true},
				{Name: "token", Type: schema.String, Sensitive: true, Pattern: `[a-z]+`},
				{Name: "tags", Type: schema.String, Shape: schema.Map, Enum: []string{"on", "off"}},
				{Name: "old", Type: schema.Bool, Deprecated: `use "tags".`},
			},
			Blocks: []schema.NestedBlock{{Name: "login", MinItems: 1, Block: schema.Block{Attributes: []schema.Attribute{
				{Name: "password", Type: schema.String, Sensitive: true},
				{Name: "tries", Type: schema.Integer, Default: 3},
			}}}, {Name: "mirror", MaxItems: 1}},
		},
		`mesh "broken"`: {Attributes: []schema.Attribute{{Name: "name", Type: schema.String, Pattern: `(`}}},
		`mesh "greedy"`: {Blocks: []schema.NestedBlock{{Name: "plugin"}}},
	}
}

func lookup(ref config.PluginRef) (schema.Block, error) {
	switch ref.Name {
	case "gone":
		return schema.Block{}, &config.MissingBinaryError{Manifest: "/plugins/mesh/gone.plugin.hcl", Binary: "/plugins/mesh/gone"}
	case "crash":
		return schema.Block{}, errors.New("describe: the plugin exited with status 2")
	}
	if s, ok := schemas()[ref.String()]; ok {
		return s, nil
	}
	known := map[config.PluginKind][]string{
		config.Discoverer: {"docker"},
		config.Mesh:       {"generic", "vault"},
		config.Sampler:    {"adaptive", "fixed", "threshold"},
	}
	return schema.Block{}, &config.NotFoundError{Known: known[ref.Kind], Dirs: []string{"/plugins"}}
}

// validate is what the plugins themselves object to.
func validate(t *testing.T, c config.PluginConfig) diag.Diagnostics {
	t.Helper()
	var ds diag.Diagnostics
	switch c.Ref.String() {
	case `sampler "threshold"`:
		var conf struct {
			Level []struct {
				Below float64 `json:"below"`
				Rate  float64 `json:"rate"`
			} `json:"level"`
		}
		decode(t, c, &conf)
		for i := 1; i < len(conf.Level); i++ {
			if conf.Level[i].Below <= conf.Level[i-1].Below {
				ds = append(ds, diag.Errorf(diag.Path{diag.Attr("level"), diag.Index(i), diag.Attr("below")}, "levels must rise", "%g is not more than %g of the level before.", conf.Level[i].Below, conf.Level[i-1].Below))
			}
			if conf.Level[i].Rate > conf.Level[i-1].Rate {
				ds = append(ds, diag.Errorf(diag.Path{diag.Attr("level"), diag.Index(i), diag.Attr("rate")}, "rates must fall", "%g is more than %g of the level before.", conf.Level[i].Rate, conf.Level[i-1].Rate))
			}
		}
	case `mesh "vault"`:
		var conf struct {
			Token string            `json:"token"`
			Tags  map[string]string `json:"tags"`
			Login []struct {
				Password string `json:"password"`
			} `json:"login"`
		}
		decode(t, c, &conf)
		if conf.Token == "wrong" {
			ds = append(ds, diag.Errorf(diag.Path{diag.Attr("token")}, "bad token", "The token %s\x1b[2J is not known.", conf.Token))
		}
		if _, ok := conf.Tags["x"]; ok {
			ds = append(ds, diag.Errorf(diag.Path{diag.Attr("tags"), diag.Key("x")}, "no such tag", "There is no tag x."))
		}
		for i, l := range conf.Login {
			if l.Password == "" {
				ds = append(ds, diag.Errorf(diag.Path{diag.Attr("login"), diag.Index(i), diag.Attr("password")}, "no password", "Give one."))
			}
		}
	}
	return ds
}

func decode(t *testing.T, c config.PluginConfig, into any) {
	t.Helper()
	if err := json.Unmarshal(c.JSON, into); err != nil {
		t.Fatalf("%s: %v: %s", c.Ref, err, c.JSON)
	}
}

// check runs all steps as the daemon does.
func check(t *testing.T, p config.Parser, name string, src []byte) (*config.File, []config.PluginConfig, config.Diagnostics) {
	t.Helper()
	f, diags := p.Parse(name, src)
	plugins, found := f.DecodePlugins(lookup)
	diags = config.Join(diags, found)
	if diags.HasErrors() {
		return f, plugins, diags
	}
	for _, c := range plugins {
		diags = config.Join(diags, c.Diagnostics(validate(t, c)))
	}
	return f, plugins, diags
}

func asText(t *testing.T, ds config.Diagnostics) string {
	t.Helper()
	var b writer
	if err := ds.Write(&b, config.TextOptions{Width: 100}); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type writer []byte

func (w *writer) Write(p []byte) (int, error) {
	*w = append(*w, p...)
	return len(p), nil
}

func mustParse(t *testing.T, src string) (*config.File, []config.PluginConfig) {
	t.Helper()
	f, plugins, diags := check(t, parser(nil), "config.hcl", []byte(src))
	if len(diags) > 0 {
		t.Fatal(fmt.Sprintf("%s\n", src), asText(t, diags))
	}
	return f, plugins
}
