package config

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
)

// Parser reads configurations. Its zero value asks the process's environment
// and the host.
type Parser struct {
	LookupEnv func(name string) (value string, set bool) // nil: os.LookupEnv
	Hostname  func() (string, error)                     // nil: os.Hostname
}

// File is a configuration that was read. It is never nil, but what it holds is
// only whole if no step has reported an error.
type File struct {
	Name   string
	Config Config

	src     *source
	env     *environment
	plugins []*pluginBlock
	auto    *autoAt // nil: the file has none
}

// ReadFile reads and parses a file. A file that can't be read is a diagnostic too.
func ReadFile(filename string) (*File, Diagnostics) {
	return Parser{}.ReadFile(filename)
}

// Parse checks src, the text of a file, as far as the core goes. A name that
// ends in .json is read as HCL's JSON form.
func Parse(filename string, src []byte) (*File, Diagnostics) {
	return Parser{}.Parse(filename, src)
}

// ReadFile is ReadFile with this parser.
func (p Parser) ReadFile(filename string) (*File, Diagnostics) {
	src, err := os.ReadFile(filename)
	if err != nil {
		f, _ := p.Parse(filename, nil)
		return f, Diagnostics{{
			Severity: Error,
			Summary:  "No configuration",
			Detail:   fmt.Sprintf("The configuration can't be read: %v. Is that its name? Where none is given it is config.hcl, in the working directory.", err),
		}}
	}
	return p.Parse(filename, src)
}

// Parse is Parse with this parser.
func (p Parser) Parse(filename string, src []byte) (*File, Diagnostics) {
	f := &File{
		Name: filename,
		src:  &source{name: filename, json: strings.HasSuffix(filename, ".json")},
		env:  &environment{lookup: p.LookupEnv, hostname: p.Hostname},
	}
	if f.env.lookup == nil {
		f.env.lookup = os.LookupEnv
	}
	if f.env.hostname == nil {
		f.env.hostname = os.Hostname
	}
	if tooMuch := bounded(f.src, src); tooMuch != nil {
		f.src.file = &hcl.File{Body: hcl.EmptyBody(), Bytes: src}
		return f, f.src.diagnostics(hcl.Diagnostics{tooMuch})
	}
	syntax := f.src.parse(src)
	r := &reader{file: f, dec: decoder{env: f.env, src: f.src}, syntax: syntaxErrors(syntax)}
	if !(f.src.json && syntax.HasErrors()) {
		r.read()
	}
	return f, f.src.diagnostics(append(syntax, r.dec.diags...))
}

// syntaxErrors are the places from which on the parser may have misunderstood
// what follows. An argument given twice it has understood well.
func syntaxErrors(diags hcl.Diagnostics) []hcl.Range {
	var at []hcl.Range
	for _, d := range diags {
		if d.Severity == hcl.DiagError && d.Subject != nil && d.Summary != "Attribute redefined" {
			at = append(at, *d.Subject)
		}
	}
	return at
}

// reader walks the top level of a file.
type reader struct {
	file   *File
	dec    decoder
	syntax []hcl.Range
	first  map[string]hcl.Range // where each block was first given, by title
}

func (r *reader) read() {
	core := coreBlocks()
	r.first = map[string]hcl.Range{}
	want := rootSchema(core)
	body := r.file.src.file.Body
	content, _, diags := body.PartialContent(want)
	for _, d := range diags {
		if r.understood(*d.Subject, *d.Subject) {
			r.dec.diags = append(r.dec.diags, explainLabel(d, core, want))
		}
	}
	r.unknown(body, want)

	for _, b := range content.Blocks {
		if !r.understood(b.TypeRange, blockRange(b)) {
			continue
		}
		if kind := PluginKind(b.Type); kind.valid() {
			r.plugin(kind, b)
			continue
		}
		label := ""
		if len(b.Labels) > 0 {
			label = b.Labels[0]
		}
		i := slices.IndexFunc(core, func(c coreBlock) bool {
			return c.word == b.Type && (c.label == label || c.named != nil)
		})
		switch {
		case i >= 0 && core[i].named != nil:
			one := core[i]
			one.label, one.set = label, one.named(label)
			if r.once(one.title(), labelRange(b)) {
				r.core(&one, b.Body, b.DefRange)
			}
		case i >= 0:
			if r.once(core[i].title(), labelRange(b)) {
				r.core(&core[i], b.Body, b.DefRange)
			}
		case later{}.label(b.Type, label):
			r.dec.errorf(labelRange(b), notSupported, "%s", later{}.sentence(fmt.Sprintf("%s %q", b.Type, label)))
		default:
			names := labels(core, b.Type)
			r.dec.errorf(labelRange(b), "Unknown "+b.Type, "There is no %s %q.%s The names are %s.", b.Type, label, didYouMean(label, names), quotedList(names))
		}
	}
	if len(r.syntax) == 0 {
		r.absent(core)
	}
}

// rootSchema are the blocks of the top level.
func rootSchema(core []coreBlock) *hcl.BodySchema {
	s := &hcl.BodySchema{}
	add := func(word string, labelled bool) {
		if slices.ContainsFunc(s.Blocks, func(b hcl.BlockHeaderSchema) bool { return b.Type == word }) {
			return
		}
		h := hcl.BlockHeaderSchema{Type: word}
		if labelled {
			h.LabelNames = []string{"name"}
		}
		s.Blocks = append(s.Blocks, h)
	}
	for i := range core {
		add(core[i].word, core[i].label != "" || core[i].named != nil)
	}
	for _, k := range PluginKinds() {
		add(string(k), true)
	}
	return s
}

// explainLabel says of a wrong number of labels which is right.
func explainLabel(d *hcl.Diagnostic, core []coreBlock, want *hcl.BodySchema) *hcl.Diagnostic {
	for _, b := range want.Blocks {
		word, names := b.Type, labels(core, b.Type)
		missing := d.Summary == "Missing name for "+word ||
			d.Summary == "Missing block label" && strings.Contains(d.Detail, "the "+word+" block's")
		switch {
		case missing && len(names) > 0:
			d.Summary = "Missing name for " + word
			d.Detail = fmt.Sprintf("A %s block has a name; the names are %s. Write %s %q {}.", word, quotedList(names), word, names[0])
		case missing && slices.ContainsFunc(core, func(c coreBlock) bool { return c.word == word && c.named != nil }):
			d.Summary = "Missing name for " + word
			d.Detail = fmt.Sprintf("A %s block has a name, of your choice. Write %s \"NAME\" {}.", word, word)
		case missing:
			d.Summary = "Missing name for " + word
			d.Detail = fmt.Sprintf("A %s block has a name, that of the plugin. Write %s \"NAME\" {}.", word, word)
		case d.Summary == "Extraneous label for "+word && len(b.LabelNames) > 0:
			d.Detail = fmt.Sprintf("A %s block has one name.", word)
		case d.Summary == "Extraneous label for "+word:
			d.Detail = fmt.Sprintf("A %s block has no name. Write %s {}.", word, word)
		}
	}
	return d
}

// labels that a block of the core can have.
func labels(core []coreBlock, word string) []string {
	var names []string
	for i := range core {
		if core[i].word == word && core[i].label != "" {
			names = append(names, core[i].label)
		}
	}
	return names
}

// unknown reports what of the top level is neither the core's nor a plugin's.
func (r *reader) unknown(body hcl.Body, want *hcl.BodySchema) {
	d := decoder{env: r.dec.env, src: r.dec.src}
	d.unknown(body, want, "The configuration", false)
	for _, found := range d.diags {
		name := nameAt(d.src, *found.Subject)
		if !r.understood(*found.Subject, *found.Subject) {
			continue
		}
		if (later{}).block(name) {
			found.Summary, found.Detail = notSupported, later{}.sentence(name)
		}
		r.dec.diags = append(r.dec.diags, found)
	}
}

// understood tells whether an item of the top level can be judged: in a file
// with syntax errors only what begins a line and has none on its lines.
func (r *reader) understood(begin, whole hcl.Range) bool {
	if len(r.syntax) == 0 {
		return true
	}
	for _, at := range r.syntax {
		if at.Start.Line >= whole.Start.Line && at.Start.Line <= whole.End.Line {
			return false
		}
	}
	return begin.Start.Column == 1
}

func blockRange(b *hcl.Block) hcl.Range {
	if native, ok := b.Body.(*hclsyntax.Body); ok {
		return hcl.RangeBetween(b.TypeRange, native.Range())
	}
	return b.DefRange
}

func labelRange(b *hcl.Block) hcl.Range {
	if len(b.LabelRanges) > 0 {
		return b.LabelRanges[0]
	}
	return b.DefRange
}

// once reports a block that is there already.
func (r *reader) once(title string, rng hcl.Range) bool {
	if first, ok := r.first[title]; ok {
		r.dec.errorf(rng, "Duplicate block", "%s is there already at %s. Keep one of the two.", title, rangeOf(first))
		return false
	}
	r.first[title] = rng
	return true
}

// core reads one of the core's blocks, and returns where its values stand.
func (r *reader) core(b *coreBlock, body hcl.Body, where hcl.Range) *node {
	d := decoder{env: r.dec.env, src: r.dec.src}
	values, at := d.body(body, &b.schema, where, b.title())
	raw, err := json.Marshal(values)
	if err == nil {
		var beyond diag.Diagnostics
		beyond, err = b.set(&r.file.Config, raw)
		for _, f := range beyond {
			d.diags = append(d.diags, placed(f, at, starrer(d.secrets)))
		}
	}
	if err != nil {
		d.errorf(where, "Bug in this program", "%s can't be taken over: %v. Please report it.", b.title(), err)
	}
	r.dec.diags = append(r.dec.diags, d.diags...)
	return at
}

// absent fills in what the file does not say.
func (r *reader) absent(core []coreBlock) {
	probes := slices.ContainsFunc(labels(core, "probe"), func(l string) bool {
		_, given := r.first[fmt.Sprintf("probe %q", l)]
		return given
	})
	here := r.file.src.file.Body.MissingItemRange()
	for i := range core {
		b := &core[i]
		_, given := r.first[b.title()]
		standard := !probes && b.word == "probe" && b.label != "file"
		if !given && (b.always || standard) {
			r.core(b, hcl.EmptyBody(), here)
		}
	}
	r.nodeName(here)
	if !slices.ContainsFunc(r.file.plugins, func(p *pluginBlock) bool { return p.ref.Kind == Sampler }) {
		r.defaultSampler(here)
	}
}

// nodeName is, if not given, what env("NODE_NAME", hostname()) would be.
func (r *reader) nodeName(here hcl.Range) {
	if _, given := r.first["node"]; r.file.Config.Node.Name != "" || given && r.dec.diags.HasErrors() {
		return
	}
	name, ok := r.file.env.lookup("NODE_NAME")
	if !ok || name == "" {
		var err error
		if name, err = r.file.env.hostname(); err != nil || name == "" {
			r.dec.errorf(here, "Node without a name", `The host tells no name (%v). Set NODE_NAME, or write node { name = "..." }.`, err)
			return
		}
	}
	r.file.Config.Node.Name = name
}
