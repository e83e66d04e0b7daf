package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// autoName is the word for all discoverers whose runtimes are on the host.
const autoName = "auto"

// Auto is discoverer "auto": which of the installed discoverers are looked for, and how
// those that are found are run.
type Auto struct {
	Only   []string      `json:"only"`   // names; empty: all
	Except []string      `json:"except"` // names
	Grace  time.Duration `json:"grace"`  // how long a runtime may be away until its discoverer is stopped
	Host   PluginHost    `json:"-"`      // of each that is started
}

// Wants tells whether a discoverer of that name is looked for.
func (a *Auto) Wants(name string) bool {
	return (len(a.Only) == 0 || slices.Contains(a.Only, name)) && !slices.Contains(a.Except, name)
}

// Equal tells whether the settings are the same.
func (a *Auto) Equal(o *Auto) bool {
	if a == nil || o == nil {
		return a == o
	}
	return slices.Equal(a.Only, o.Only) && slices.Equal(a.Except, o.Except) && a.Grace == o.Grace && a.Host == o.Host
}

// autoAt is where the block stands.
type autoAt struct {
	label hcl.Range
	where hcl.Range // the header
	node  *node
}

func autoBlock() coreBlock {
	names := func(name string) schema.Attribute {
		return schema.Attribute{Name: name, Type: schema.String, Shape: schema.List, Default: []string{}}
	}
	return coreBlock{
		word: string(Discoverer), label: autoName,
		schema: schema.Block{Attributes: []schema.Attribute{
			names("only"), names("except"),
			{Name: "grace", Type: schema.Duration, Default: 30 * time.Second, Min: schema.Bound(0), Max: schema.Bound(24 * time.Hour)},
		}},
		set: place(fresh(func(c *Config) **Auto { return &c.Auto }), checkAuto),
	}
}

func checkAuto(a Auto) diag.Diagnostics {
	var ds diag.Diagnostics
	if len(a.Only) > 0 && len(a.Except) > 0 {
		ds = one("except", "Contradicting arguments", `"only" names all discoverers that may be started, and so there is nothing that "except" could leave out. Keep one of the two.`)
	}
	for _, list := range []struct {
		argument string
		names    []string
	}{{"only", a.Only}, {"except", a.Except}} {
		for i, n := range list.names {
			at := diag.Path{diag.Attr(list.argument), diag.Index(i)}
			switch {
			case !pluginName.MatchString(n):
				ds = append(ds, diag.Errorf(at, "Malformed plugin name", "%q can't be a plugin: names have 1 to 63 small letters, digits and hyphens, and no hyphen at either end.", n))
			case n == autoName:
				ds = append(ds, diag.Errorf(at, "Malformed plugin name", "%q is the word for all discoverers, and none of them.", n))
			}
		}
	}
	return ds
}

// auto reads discoverer "auto".
func (r *reader) auto(b *hcl.Block, title string) {
	at := &autoAt{label: labelRange(b), where: b.DefRange}
	host, rest := r.host(b.Body, b.DefRange, title)
	block := autoBlock()
	at.node = r.core(&block, rest, b.DefRange)
	if a := r.file.Config.Auto; a != nil {
		a.Host = host
	}
	r.file.auto = at
}

// CheckAuto warns of names in discoverer "auto" that no discoverer has, of those that
// are installed.
func (f *File) CheckAuto(installed []string) Diagnostics {
	a := f.Config.Auto
	if a == nil || f.auto == nil {
		return nil
	}
	var found hcl.Diagnostics
	for _, list := range []struct {
		argument string
		names    []string
	}{{"only", a.Only}, {"except", a.Except}} {
		for i, n := range list.names {
			if slices.Contains(installed, n) || !pluginName.MatchString(n) || n == autoName {
				continue // what can't be a name is an error already
			}
			found = append(found, placed(diag.Diagnostic{
				Severity: diag.Warning, Path: diag.Path{diag.Attr(list.argument), diag.Index(i)},
				Summary: "Unknown plugin",
				Detail:  fmt.Sprintf("No discoverer %q is installed here.%s Installed are: %s.", n, didYouMean(n, installed), orNone(installed)),
			}, f.auto.node, starrer(nil)))
		}
	}
	return f.src.diagnostics(found)
}

// EachAuto calls check once for each of the discoverers that discoverer "auto" may start.
// Its errors are shown as those of a Lookup, at the block's name.
func (f *File) EachAuto(names []string, check func(ref PluginRef) error) Diagnostics {
	var found hcl.Diagnostics
	for _, n := range names {
		ref := f.autoRef(n)
		if err := check(ref); err != nil {
			found = append(found, noPlugin(&pluginBlock{ref: ref, label: f.auto.label}, err))
		}
	}
	return f.src.diagnostics(found)
}

// autoRef is a discoverer that discoverer "auto" may start.
func (f *File) autoRef(name string) PluginRef {
	return PluginRef{Kind: Discoverer, Name: name, Range: rangeOf(f.auto.label), Host: f.Config.Auto.Host, Auto: true}
}

// NeedsArgumentsError says that a plugin can't be run by its defaults alone.
type NeedsArgumentsError struct {
	Plugin    string // as in PluginRef.String
	Arguments []string
}

func (e *NeedsArgumentsError) Error() string {
	return fmt.Sprintf("it needs arguments (%s): write a block %s { ... } for it", strings.Join(e.Arguments, ", "), e.Plugin)
}

// AutoPlugin is the configuration of a discoverer that discoverer "auto" starts: its
// defaults. The error is a *NeedsArgumentsError when they are not enough, or says what is
// wrong with the schema. It may be called by several goroutines.
func (f *File) AutoPlugin(name string, s schema.Block) (PluginConfig, error) {
	ref := f.autoRef(name)
	if err := checkSchema(&s); err != nil {
		return PluginConfig{}, fmt.Errorf("it advertises a schema that can't be used: %w; tell its author", err)
	}
	var needs []string
	for _, a := range s.Attributes {
		if a.Required {
			needs = append(needs, strconv.Quote(a.Name))
		}
	}
	for _, b := range s.Blocks {
		if b.MinItems > 0 {
			needs = append(needs, "block "+strconv.Quote(b.Name))
		}
	}
	if len(needs) > 0 {
		return PluginConfig{}, &NeedsArgumentsError{Plugin: ref.String(), Arguments: needs}
	}
	// What the file has of secrets was marked when it was read; this adds none.
	own := &File{Name: f.Name, src: f.src.clone(), env: f.env}
	c, found := own.decode(&pluginBlock{ref: ref, label: f.auto.label, where: f.auto.where, body: hcl.EmptyBody()}, s)
	if found.HasErrors() {
		return PluginConfig{}, fmt.Errorf("make its configuration: %w", faults(found))
	}
	return c, nil
}
