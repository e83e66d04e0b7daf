// Command everything is a mesh detector whose configuration has everything that a
// schema can have, and that finds wrong what its configuration says. Its first
// argument is its name, which chooses another schema: one that can't be used.
package main

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/mesh"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

func main() {
	name := os.Args[1]
	plugin.Serve(plugin.Detector[config]{
		Name: name, Version: "v1.2.3", Doc: "Has everything that a schema can have. Detects nothing.",
		Schema: schemas()[name], Validate: validate,
		New: func(context.Context, config, plugin.Env) (mesh.Detector, error) { return nothing{}, nil },
	})
}

type config struct {
	Name    string            `json:"name"`
	Ratio   float64           `json:"ratio"`
	Ports   []int             `json:"ports"`
	Labels  map[string]string `json:"labels"`
	Token   string            `json:"token"`
	Server  string            `json:"server"`
	Timeout time.Duration     `json:"timeout"`
	Say     []finding         `json:"say"`
	Rules   []struct {
		Match   string   `json:"match"`
		Images  []string `json:"images"`
		Weights []struct {
			Value int `json:"value"`
		} `json:"weight"`
	} `json:"rule"`
}

// finding is what the configuration wants said, at a path of names, of indexes that
// are written #1, and of keys that are written =key.
type finding struct {
	At     []string `json:"at"`
	Warn   bool     `json:"warn"`
	Detail string   `json:"detail"`
}

func schemas() map[string]schema.Block {
	return map[string]schema.Block{
		"everything": everything(),
		"default": {Attributes: []schema.Attribute{
			{Name: "retries", Type: schema.Integer, Default: 7, Max: schema.Bound(5)},
			{Name: "pause", Type: schema.Duration, Default: "5s"},
		}},
		"endless":  deep(schema.MaxDepth + 1),
		"reserved": {Blocks: []schema.NestedBlock{{Name: "plugin"}}},
	}
}

func deep(n int) schema.Block {
	if n == 0 {
		return schema.Block{}
	}
	return schema.Block{Blocks: []schema.NestedBlock{{Name: "in", Block: deep(n - 1)}}}
}

func everything() schema.Block {
	return schema.Block{
		Doc: "All types, shapes and checks there are.",
		Attributes: []schema.Attribute{
			{Name: "name", Type: schema.String, Required: true, Pattern: `[a-z]{2,8}`, Doc: "The mesh."},
			{Name: "level", Type: schema.String, Default: "low", Enum: []string{"low", "middle", "high"}, Doc: "How much."},
			{Name: "ratio", Type: schema.Number, Default: 0.5, Min: schema.Bound(0), Max: schema.Bound(1), Doc: "Which part."},
			{Name: "count", Type: schema.Integer, Default: 4, Min: schema.Bound(1), Max: schema.Bound(64), Doc: "How many."},
			{Name: "strict", Type: schema.Bool, Default: true, Doc: "Whether to be so."},
			{Name: "timeout", Type: schema.Duration, Default: 5 * time.Second, Min: schema.Bound(100 * time.Millisecond), Max: schema.Bound(time.Minute), Doc: "How long."},
			{Name: "buffer", Type: schema.Size, Default: 1 << 20, Min: schema.Bound(4 << 10), Doc: "How large."},
			{Name: "ports", Type: schema.Integer, Shape: schema.List, Default: []int{}, Min: schema.Bound(1), Max: schema.Bound(65535), Doc: "Where."},
			{Name: "labels", Type: schema.String, Shape: schema.Map, Default: map[string]string{}, Doc: "What to look for."},
			{Name: "socket", Type: schema.String, Default: "/run/everything.sock", Opens: schema.Socket, Doc: "Whom to ask."},
			{Name: "files", Type: schema.String, Shape: schema.List, Default: []string{}, Opens: schema.Path, Doc: "What to read."},
			{Name: "server", Type: schema.String, Opens: schema.Network, Doc: "Whom else to ask."},
			{Name: "token", Type: schema.String, Sensitive: true, Pattern: `[a-z]+`, Doc: "What to show."},
			{Name: "size", Type: schema.Integer, Deprecated: `use "count".`, Doc: "Was count."},
		},
		Blocks: []schema.NestedBlock{
			{Name: "rule", MaxItems: 3, Block: schema.Block{
				Doc: "What to recognise.",
				Attributes: []schema.Attribute{
					{Name: "match", Type: schema.String, Required: true, Doc: "A pattern."},
					{Name: "images", Type: schema.String, Shape: schema.List, Default: []string{}, Doc: "Of which images."},
				},
				Blocks: []schema.NestedBlock{{Name: "weight", MinItems: 1, Block: schema.Block{
					Doc:        "How much it counts.",
					Attributes: []schema.Attribute{{Name: "value", Type: schema.Integer, Required: true, Doc: "So much."}},
				}}},
			}},
			{Name: "say", Block: schema.Block{
				Doc: "What to find wrong.",
				Attributes: []schema.Attribute{
					{Name: "at", Type: schema.String, Shape: schema.List, Required: true, Doc: "Where: names, #indexes and =keys."},
					{Name: "warn", Type: schema.Bool, Default: false, Doc: "Whether it is but a warning."},
					{Name: "detail", Type: schema.String, Default: "It is.", Doc: "What to say of it."},
				},
			}},
		},
	}
}

// validate finds what a schema can't say, and what the configuration wants found.
func validate(c config) diag.Diagnostics {
	var ds diag.Diagnostics
	for i, r := range c.Rules {
		rule := diag.Path{diag.Attr("rule"), diag.Index(i)}
		if r.Match == "" && len(r.Images) == 0 {
			ds = append(ds, diag.Errorf(rule, "matches everything", "Give it a match or images."))
		}
		for j, image := range r.Images {
			if strings.ContainsAny(image, " :") {
				ds = append(ds, diag.Errorf(append(rule[:2:2], diag.Attr("images"), diag.Index(j)), "not an image", "%q has a tag, or is none.", image))
			}
		}
		for j, w := range r.Weights {
			if w.Value == 0 {
				ds = append(ds, diag.Errorf(append(rule[:2:2], diag.Attr("weight"), diag.Index(j), diag.Attr("value")), "weighs nothing", "It would never count."))
			}
		}
	}
	for i, p := range c.Ports {
		if i > 0 && p <= c.Ports[i-1] {
			ds = append(ds, diag.Errorf(diag.Path{diag.Attr("ports"), diag.Index(i)}, "ports must rise", "%d is not above %d.", p, c.Ports[i-1]))
		}
	}
	if v, ok := c.Labels["mesh"]; ok && v != c.Name {
		ds = append(ds, diag.Errorf(diag.Path{diag.Attr("labels"), diag.Key("mesh")}, "another mesh", "%q is not %q.", v, c.Name))
	}
	if c.Token == "wrong" {
		ds = append(ds, diag.Errorf(diag.Path{diag.Attr("token")}, "unknown token", "%q is not known; the server is %q.", c.Token, c.Server))
	}
	for _, s := range c.Say {
		d := diag.Diagnostic{Severity: diag.Error, Summary: "as was wanted", Detail: s.Detail}
		if s.Warn {
			d.Severity = diag.Warning
		}
		for _, step := range s.At {
			if key, ok := strings.CutPrefix(step, "="); ok {
				d.Path = append(d.Path, diag.Key(key))
			} else if index, ok := strings.CutPrefix(step, "#"); ok {
				d.Path = append(d.Path, diag.Index(index[0]-'0'))
			} else {
				d.Path = append(d.Path, diag.Attr(step))
			}
		}
		ds = append(ds, d)
	}
	return ds
}

// nothing detects nothing.
type nothing struct{}

func (nothing) Detect(ctx context.Context, _ <-chan *protov1.InventoryChanges, _ mesh.Facts) error {
	<-ctx.Done()
	return nil
}
