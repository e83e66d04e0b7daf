package config

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Manifest is what NAME.plugin.hcl says of a plugin before anything runs.
type Manifest struct {
	Kind     PluginKind
	Name     string
	Protocol int
	// Command is the program and its arguments. A program whose path is not
	// absolute is relative to the manifest.
	Command []string
	// Files are what a script needs besides its interpreter, relative to the
	// manifest. They are checked and kept together with the program.
	Files []string
	Needs Needs
	Auto  ManifestAuto
}

// ManifestAuto says how a discoverer takes part in discoverer "auto".
type ManifestAuto struct {
	// Enabled: it is started when its Detect finds its runtime.
	Enabled bool `json:"enabled"`
	// Fallback: it is also started when there is no other discoverer at all.
	Fallback bool `json:"fallback"`
}

// Needs is what a plugin asks for beyond its own process.
type Needs struct {
	Sockets      []string `json:"sockets"`      // unix sockets that it connects to
	Paths        []string `json:"paths"`        // files and directories that it reads
	Capabilities []string `json:"capabilities"` // CAP_...
	Env          []string `json:"env"`          // the daemon's variables that it is given
	Network      bool     `json:"network"`      // other than unix sockets
	Root         bool     `json:"root"`         // to run as root
}

func manifestSchema() schema.Block {
	words := func(name, doc string) schema.Attribute {
		return schema.Attribute{Name: name, Type: schema.String, Shape: schema.List, Default: []string{}, Doc: doc}
	}
	return schema.Block{
		Attributes: []schema.Attribute{
			{Name: "protocol", Type: schema.Integer, Required: true, Min: schema.Bound(1), Doc: "the protocol that it speaks"},
			{Name: "command", Type: schema.String, Shape: schema.List, Required: true, Doc: "the program and its arguments"},
			words("files", "what a script needs besides its interpreter"),
		},
		Blocks: []schema.NestedBlock{{Name: "needs", MaxItems: 1, Block: schema.Block{Attributes: []schema.Attribute{
			words("sockets", "unix sockets that it connects to"),
			words("paths", "files and directories that it reads"),
			words("capabilities", "capabilities that it uses"),
			words("env", "variables of the daemon that it is given"),
			{Name: "network", Type: schema.Bool, Default: false, Doc: "whether it uses the network"},
			{Name: "root", Type: schema.Bool, Default: false, Doc: "whether it must run as root"},
		}}}, {Name: "auto", MaxItems: 1, Block: schema.Block{Attributes: []schema.Attribute{
			{Name: "enabled", Type: schema.Bool, Default: true, Doc: "whether discoverer \"auto\" may start it"},
			{Name: "fallback", Type: schema.Bool, Default: false, Doc: "whether discoverer \"auto\" starts it when there is no other"},
		}}}},
	}
}

// ParseManifest reads a manifest. The error names every mistake at its
// file:line:col; filename is used for nothing else. Whether the plugin can be run
// is for the plugin host to judge.
func ParseManifest(filename string, src []byte) (Manifest, error) {
	s := &source{name: filename}
	if tooMuch := bounded(s, src); tooMuch != nil {
		return Manifest{}, faults(s.diagnostics(hcl.Diagnostics{tooMuch}))
	}
	var diags hcl.Diagnostics
	s.file, diags = hclsyntax.ParseConfig(src, filename, hcl.InitialPos)
	if diags.HasErrors() {
		return Manifest{}, faults(s.diagnostics(diags))
	}
	content, diags := s.file.Body.Content(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{
		Type: hostBlock, LabelNames: []string{"kind", "name"},
	}}})
	if diags.HasErrors() {
		return Manifest{}, faults(s.diagnostics(diags))
	}
	if n := len(content.Blocks); n != 1 {
		return Manifest{}, fmt.Errorf("%s: a manifest is one block `plugin \"KIND\" \"NAME\" { ... }`; this one has %d", filename, n)
	}
	b := content.Blocks[0]
	m := Manifest{Kind: PluginKind(b.Labels[0]), Name: b.Labels[1]}
	// No variables, no host name.
	d := decoder{env: nowhere("a manifest"), src: s}
	want := manifestSchema()
	values, _ := d.body(b.Body, &want, b.DefRange, fmt.Sprintf("plugin %q %q", m.Kind, m.Name))
	if d.diags.HasErrors() {
		return Manifest{}, faults(s.diagnostics(d.diags))
	}
	raw, err := json.Marshal(values)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: take over its values: %w", filename, err)
	}
	var read struct {
		Protocol int
		Command  []string
		Files    []string
		Needs    []Needs
		Auto     []ManifestAuto
	}
	if err := json.Unmarshal(raw, &read); err != nil {
		return Manifest{}, fmt.Errorf("%s: take over its values: %w", filename, err)
	}
	if len(read.Command) == 0 || read.Command[0] == "" {
		return Manifest{}, fmt.Errorf("%s: command is empty; name the program, as in command = [\"./%s\"]", filename, m.Name)
	}
	m.Protocol, m.Command, m.Files = read.Protocol, read.Command, read.Files
	if len(read.Needs) == 1 {
		m.Needs = read.Needs[0]
	}
	m.Auto.Enabled = m.Kind == Discoverer
	if len(read.Auto) == 1 {
		m.Auto = read.Auto[0]
		switch {
		case m.Kind != Discoverer:
			return Manifest{}, fmt.Errorf("%s: auto { ... } is for discoverers; a %s has no part in it: take it out", filename, m.Kind)
		case m.Auto.Fallback && !m.Auto.Enabled:
			return Manifest{}, fmt.Errorf("%s: auto { ... } says that it is never started, and that it is the one to fall back to: say one of the two", filename)
		}
	}
	return m, nil
}

// faults are the errors among diagnostics, as one.
func faults(ds Diagnostics) error {
	var errs []error
	for _, d := range ds {
		if d.Severity == Error {
			errs = append(errs, d)
		}
	}
	return errors.Join(errs...)
}
