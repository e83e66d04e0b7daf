package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// PluginKind is the block that names a plugin, and the directory it lies in.
type PluginKind string

const (
	Discoverer PluginKind = "discoverer"
	Mesh       PluginKind = "mesh" // a detector
	Sampler    PluginKind = "sampler"
)

// DefaultSampler is the sampler of a file that names none.
const DefaultSampler = "threshold"

// hostBlock is the reserved block in a plugin's block.
const hostBlock = "plugin"

// PluginKinds are all kinds of plugins.
func PluginKinds() []PluginKind { return []PluginKind{Discoverer, Mesh, Sampler} }

func (k PluginKind) valid() bool { return slices.Contains(PluginKinds(), k) }

// PluginRef is a plugin that the file names.
type PluginRef struct {
	Kind  PluginKind
	Name  string
	Range Range      // of the name
	Host  PluginHost // how its binary is run
	// Implicit: the file does not name it, it is the default.
	Implicit bool
	// Auto: the file does not name it, discoverer "auto" does what it would say.
	Auto bool
}

// String is the block's header: sampler "threshold".
func (r PluginRef) String() string { return fmt.Sprintf("%s %q", r.Kind, r.Name) }

// Lookup gives the schema of a plugin. An error says why there is none:
// *NotFoundError, *MissingBinaryError, *LockError and *schema.Broken get words of
// their own, any other error is shown as it is. It is called once for each plugin in
// the file.
type Lookup func(ref PluginRef) (schema.Block, error)

// NotFoundError says that no plugin of that kind and name exists.
type NotFoundError struct {
	Known []string // names of this kind that were found
	Dirs  []string // where was searched
}

func (e *NotFoundError) Error() string {
	return "not found in " + strings.Join(e.Dirs, ", ")
}

// MissingBinaryError says that a plugin's manifest is there but not what it
// wants to run.
type MissingBinaryError struct {
	Manifest string
	Binary   string
}

func (e *MissingBinaryError) Error() string {
	return fmt.Sprintf("%s wants to run %s, which is not there", e.Manifest, e.Binary)
}

// PluginConfig is a plugin's configuration, checked against its schema.
type PluginConfig struct {
	Ref PluginRef
	// JSON is what the plugin is sent: defaults filled in, durations in
	// nanoseconds, sizes in bytes, nested blocks as arrays. It may hold
	// sensitive values: never log it.
	JSON []byte

	src     *source
	at      *node
	secrets []string
	grants  []Grant
}

// pluginBlock is a plugin's block in the file.
type pluginBlock struct {
	ref   PluginRef
	label hcl.Range
	where hcl.Range // the header
	body  hcl.Body  // without the reserved block
}

var pluginName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (r *reader) plugin(kind PluginKind, b *hcl.Block) {
	name, at := b.Labels[0], labelRange(b)
	title := fmt.Sprintf("%s %q", kind, name)
	if !pluginName.MatchString(name) {
		r.dec.errorf(at, "Malformed plugin name", "%q can't be a plugin: names have 1 to 63 small letters, digits and hyphens, and no hyphen at either end.", name)
		return
	}
	if !r.once(title, at) {
		return
	}
	if kind == Sampler {
		if i := slices.IndexFunc(r.file.plugins, func(p *pluginBlock) bool { return p.ref.Kind == Sampler }); i >= 0 {
			r.dec.errorf(at, "Duplicate block", "There can be one sampler, and %s is there already at %s. Keep one of the two.", r.file.plugins[i].ref, r.file.plugins[i].ref.Range)
			return
		}
	}
	if kind == Discoverer && name == autoName {
		r.auto(b, title)
		return
	}
	p := &pluginBlock{
		ref:   PluginRef{Kind: kind, Name: name, Range: rangeOf(at)},
		label: at, where: b.DefRange,
	}
	p.ref.Host, p.body = r.host(b.Body, b.DefRange, title)
	r.file.plugins = append(r.file.plugins, p)
}

func (r *reader) defaultSampler(here hcl.Range) {
	p := &pluginBlock{
		ref:   PluginRef{Kind: Sampler, Name: DefaultSampler, Range: rangeOf(here), Implicit: true},
		label: here, where: here,
	}
	p.ref.Host, p.body = r.host(hcl.EmptyBody(), here, p.ref.String())
	r.file.plugins = append(r.file.plugins, p)
}

// host takes the reserved block out of a plugin's body.
func (r *reader) host(body hcl.Body, where hcl.Range, title string) (PluginHost, hcl.Body) {
	content, rest, diags := body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: hostBlock}}})
	r.dec.diags = append(r.dec.diags, diags...)
	title = fmt.Sprintf("%q of %s", hostBlock, title)
	own := hcl.EmptyBody()
	for i, b := range content.Blocks {
		if i > 0 {
			r.dec.errorf(b.DefRange, "Duplicate block", "%s is there already at %s. Keep one of the two.", title, rangeOf(content.Blocks[0].DefRange))
			continue
		}
		own, where = b.Body, b.DefRange
	}
	s := hostSchema()
	d := decoder{env: r.dec.env, src: r.dec.src}
	values, _ := d.body(own, &s, where, title)
	r.dec.diags = append(r.dec.diags, d.diags...)
	var host PluginHost
	if d.diags.HasErrors() {
		return host, rest
	}
	raw, err := json.Marshal(values)
	if err == nil {
		err = json.Unmarshal(raw, &host)
	}
	if err != nil {
		r.dec.errorf(where, "Bug in this program", "%s can't be taken over: %v. Please report it.", title, err)
	}
	return host, rest
}

// Plugins are the plugins that the file names, in its order, and the default
// sampler if it names none.
func (f *File) Plugins() []PluginRef {
	refs := make([]PluginRef, len(f.plugins))
	for i, p := range f.plugins {
		refs[i] = p.ref
	}
	return refs
}

// EachPlugin calls check once for each plugin that the file names. Its errors are
// shown as those of a Lookup.
func (f *File) EachPlugin(check func(ref PluginRef) error) Diagnostics {
	var found hcl.Diagnostics
	for _, p := range f.plugins {
		if err := check(p.ref); err != nil {
			f.src.maskBody(p.body)
			found = append(found, noPlugin(p, err))
		}
	}
	return f.src.diagnostics(found)
}

// DecodePlugins checks the block of every plugin against its schema. A plugin
// whose block has errors, or that lookup has none for, is not in the result.
func (f *File) DecodePlugins(lookup Lookup) ([]PluginConfig, Diagnostics) {
	var configs []PluginConfig
	var all []Diagnostics
	for _, p := range f.plugins {
		s, err := lookup(p.ref)
		if err != nil {
			f.src.maskBody(p.body)
			all = append(all, f.src.diagnostics(hcl.Diagnostics{noPlugin(p, err)}))
			continue
		}
		c, diags := f.decode(p, s)
		all = append(all, diags)
		if !diags.HasErrors() {
			configs = append(configs, c)
		}
	}
	return configs, Join(all...)
}

func (f *File) decode(p *pluginBlock, s schema.Block) (PluginConfig, Diagnostics) {
	c := PluginConfig{Ref: p.ref, src: f.src}
	if err := checkSchema(&s); err != nil {
		f.src.maskBody(p.body)
		return c, f.src.diagnostics(hcl.Diagnostics{noPlugin(p, err)})
	}
	f.src.maskAssignments(sensitiveNames(&s))
	d := decoder{env: f.env, src: f.src}
	values, at := d.body(p.body, &s, p.where, p.ref.String())
	c.at, c.secrets, c.grants = at, d.secrets, d.grants
	raw, err := json.Marshal(values)
	if err != nil {
		d.errorf(p.label, "Broken plugin", "%s advertises a default that can't be used: %v. Tell its author.", p.ref.String(), err)
	}
	c.JSON = raw
	return c, f.src.diagnostics(d.diags)
}

func noPlugin(p *pluginBlock, err error) *hcl.Diagnostic {
	var notFound *NotFoundError
	var noBinary *MissingBinaryError
	var broken *schema.Broken
	var locked *LockError
	title := p.ref.String()
	if p.ref.Implicit {
		title += " (the default of a configuration that names no sampler)"
	}
	switch {
	case errors.As(err, &notFound):
		if (later{}).plugin(p.ref.Kind, p.ref.Name) {
			return errorAt(p.label, notSupported, "%s Plugins of this kind that were found: %s.", later{}.sentence(title), orNone(notFound.Known))
		}
		detail := fmt.Sprintf("%s was not found in %s.%s Found there: %s.", title, strings.Join(notFound.Dirs, " or "), didYouMean(p.ref.Name, notFound.Known), orNone(notFound.Known))
		return errorAt(p.label, "Unknown plugin", "%s Further directories are named with plugins { dirs = [...] }.", detail)
	case errors.As(err, &broken):
		return errorAt(p.label, "Broken plugin", "%s advertises a schema that can't be used: %v. Tell its author.", title, broken)
	case errors.As(err, &noBinary):
		return errorAt(p.label, "Missing plugin binary", "%s can't run: %s wants to start %s, which is not there. Build it (make build) or install it again.", title, noBinary.Manifest, noBinary.Binary)
	case errors.As(err, &locked):
		return errorAt(p.label, "Plugin not as locked", "%s is not run:\n%s.\n%s", title, strings.Join(locked.Reasons, ";\n"), locked.advice())
	}
	return errorAt(p.label, "Plugin can't be used", "%s: %s.", title, strings.TrimSuffix(err.Error(), "."))
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return quotedList(names)
}
