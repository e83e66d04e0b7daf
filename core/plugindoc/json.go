package plugindoc

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// The names below are an interface: programs read them.

type pluginJSON struct {
	Kind     string       `json:"kind"`
	Name     string       `json:"name"`
	Version  string       `json:"version"`
	Protocol int          `json:"protocol"`
	Doc      string       `json:"doc"`
	Command  []string     `json:"command"`
	Files    []string     `json:"files"`
	Needs    config.Needs `json:"needs"`
	Program  string       `json:"program,omitempty"`
	Manifest string       `json:"manifest,omitempty"`
	Digest   string       `json:"digest,omitempty"`
	Schema   blockJSON    `json:"schema"`
}

type blockJSON struct {
	Doc       string            `json:"doc"`
	Arguments []argumentJSON    `json:"arguments"`
	Blocks    []nestedBlockJSON `json:"blocks"`
}

type nestedBlockJSON struct {
	Name     string `json:"name"`
	MinItems int    `json:"min_items"`
	MaxItems int    `json:"max_items"` // 0: no limit
	blockJSON
}

type argumentJSON struct {
	Name       string   `json:"name"`
	Type       string   `json:"type"`
	Shape      string   `json:"shape"`
	Required   bool     `json:"required"`
	Default    any      `json:"default,omitempty"` // in the units of the configuration
	Doc        string   `json:"doc"`
	Sensitive  bool     `json:"sensitive"`
	Deprecated string   `json:"deprecated,omitempty"`
	Enum       []string `json:"enum,omitempty"`
	Min        *float64 `json:"min,omitempty"`
	Max        *float64 `json:"max,omitempty"`
	Pattern    string   `json:"pattern,omitempty"`
	Opens      string   `json:"opens,omitempty"`
}

// JSON writes plugins as an array.
func JSON(w io.Writer, all []Plugin) error {
	out := make([]pluginJSON, 0, len(all))
	for _, p := range all {
		m := p.Manifest
		out = append(out, pluginJSON{
			Kind: string(m.Kind), Name: m.Name, Version: p.Version, Protocol: m.Protocol, Doc: p.Doc,
			Command: m.Command, Files: some(m.Files), Program: p.Program, Manifest: p.File, Digest: p.Digest,
			Needs: config.Needs{
				Sockets: some(m.Needs.Sockets), Paths: some(m.Needs.Paths), Capabilities: some(m.Needs.Capabilities),
				Env: some(m.Needs.Env), Network: m.Needs.Network, Root: m.Needs.Root,
			},
			Schema: blockOf(&p.Schema),
		})
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(out); err != nil {
		return fmt.Errorf("write plugins as JSON: %w", err)
	}
	return nil
}

// some is a list that is never null.
func some(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func blockOf(b *schema.Block) blockJSON {
	out := blockJSON{Doc: b.Doc, Arguments: []argumentJSON{}, Blocks: []nestedBlockJSON{}}
	for _, a := range b.Attributes {
		arg := argumentJSON{
			Name: a.Name, Required: a.Required, Default: a.Default, Doc: a.Doc, Sensitive: a.Sensitive,
			Deprecated: a.Deprecated, Enum: a.Enum, Min: a.Min, Max: a.Max, Pattern: a.Pattern,
			Type: map[schema.Type]string{
				schema.String: "string", schema.Number: "number", schema.Integer: "integer", schema.Bool: "bool",
				schema.Duration: "duration", schema.Size: "size",
			}[a.Type],
			Shape: map[schema.Shape]string{schema.Single: "single", schema.List: "list", schema.Map: "map"}[a.Shape],
			Opens: map[schema.Opens]string{schema.Socket: "socket", schema.Path: "path", schema.Network: "network"}[a.Opens],
		}
		if a.Sensitive {
			arg.Default = nil
		}
		out.Arguments = append(out.Arguments, arg)
	}
	for i := range b.Blocks {
		n := &b.Blocks[i]
		out.Blocks = append(out.Blocks, nestedBlockJSON{Name: n.Name, MinItems: n.MinItems, MaxItems: n.MaxItems, blockJSON: blockOf(&n.Block)})
	}
	return out
}
