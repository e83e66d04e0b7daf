package config

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// decoder checks bodies against schemas and collects what is wrong.
type decoder struct {
	env   *environment
	src   *source
	diags hcl.Diagnostics

	// secrets are the sensitive values read, and those from the environment, to
	// be kept out of what plugins say.
	secrets []string
	// patterns are those of the schemas, compiled once for all values.
	patterns map[string]*regexp.Regexp

	// grants are what the values read open.
	grants []Grant
}

func (d *decoder) errorf(rng hcl.Range, summary, format string, args ...any) {
	d.diags = append(d.diags, errorAt(rng, summary, format, args...))
}

// body checks one body. where is the block's header, title how the block is
// called in a sentence. The result is what encoding/json makes the
// configuration of, defaults filled in; it is complete only if no errors were
// found.
func (d *decoder) body(body hcl.Body, s *schema.Block, where hcl.Range, title string) (map[string]any, *node) {
	want := &hcl.BodySchema{}
	for i := range s.Attributes {
		want.Attributes = append(want.Attributes, hcl.AttributeSchema{Name: s.Attributes[i].Name})
	}
	for i := range s.Blocks {
		want.Blocks = append(want.Blocks, hcl.BlockHeaderSchema{Type: s.Blocks[i].Name})
	}
	content, _, diags := body.PartialContent(want)
	d.diags = append(d.diags, diags...)
	d.unknown(body, want, title, hasSensitive(s))

	out := map[string]any{}
	at := &node{rng: where, members: map[string]*node{}}
	for i := range s.Attributes {
		a := &s.Attributes[i]
		given := content.Attributes[a.Name]
		if given != nil && a.Sensitive {
			d.src.mask(given.Expr.Range())
		}
		if given != nil && a.Deprecated != "" {
			d.diags = append(d.diags, &hcl.Diagnostic{
				Severity: hcl.DiagWarning,
				Summary:  "Deprecated argument",
				Detail:   fmt.Sprintf("%q of %s is going away: %s", a.Name, title, a.Deprecated),
				Subject:  &given.NameRange,
			})
		}
		value, place := d.attribute(given, a)
		if place != nil {
			at.members[a.Name] = place
		}
		switch {
		case value != nil:
			out[a.Name] = value
		case place == nil && a.Required:
			d.errorf(where, "Missing argument", "%s needs %q: %s.", title, a.Name, wants(a))
		case a.Default != nil:
			// Also instead of a wrong value, so that the rest can be checked.
			out[a.Name] = a.Default
		}
	}
	for i := range s.Blocks {
		nested := &s.Blocks[i]
		values, place := d.nested(content.Blocks.OfType(nested.Name), nested, where, title)
		out[nested.Name] = values
		at.members[nested.Name] = place
	}
	return out, at
}

func (d *decoder) nested(blocks hcl.Blocks, s *schema.NestedBlock, where hcl.Range, title string) ([]any, *node) {
	place := &node{rng: where, blocks: true}
	values := []any{}
	headers := d.src.headers(blocks)
	for i, b := range blocks {
		if s.MaxItems > 0 && i == s.MaxItems {
			d.errorf(headers[i], "Too many blocks", "%s takes at most %d %q, this is one more.", title, s.MaxItems, s.Name)
		}
		value, at := d.body(b.Body, &s.Block, headers[i], fmt.Sprintf("%q of %s", s.Name, title))
		values = append(values, value)
		place.items = append(place.items, at)
	}
	if len(blocks) < s.MinItems {
		d.errorf(where, "Missing block", "%s needs at least %d %q, there are %d.", title, s.MinItems, s.Name, len(blocks))
	}
	if len(place.items) > 0 {
		place.rng = place.items[0].rng
	}
	return values, place
}

// unknown reports what stands in a body and is not in its schema. The library
// finds it, alike for both syntaxes; the words are ours, and say what is
// allowed.
func (d *decoder) unknown(body hcl.Body, want *hcl.BodySchema, title string, secretive bool) {
	_, diags := body.Content(want)
	for _, found := range diags {
		var isBlock bool
		switch found.Summary {
		case "Unsupported argument", "Extraneous JSON object property":
		case "Unsupported block type":
			isBlock = true
		default:
			continue // PartialContent has said it
		}
		name := nameAt(d.src, *found.Subject)
		if secretive {
			// A sensitive argument may hide behind a misspelt name.
			d.maskUnknown(body, name)
		}
		d.diags = append(d.diags, unknownName(d.src, *found.Subject, name, isBlock, want, title))
	}
}

func unknownName(src *source, rng hcl.Range, name string, isBlock bool, want *hcl.BodySchema, title string) *hcl.Diagnostic {
	var arguments, blocks []string
	for _, a := range want.Attributes {
		arguments = append(arguments, a.Name)
	}
	for _, b := range want.Blocks {
		blocks = append(blocks, b.Type)
	}
	if !isBlock && slices.Contains(blocks, name) {
		return errorAt(rng, "Not an argument", "%q is a block: write it as %s { ... }, without an equals sign.", name, name)
	}
	if isBlock && slices.Contains(arguments, name) {
		return errorAt(rng, "Not a block", "%q is an argument: write it as %s = ..., with an equals sign.", name, name)
	}
	what := "argument"
	switch {
	case isBlock || src.json && len(arguments) == 0 && len(blocks) > 0:
		what = "block"
	case src.json && len(blocks) > 0: // JSON does not tell them apart
		what = "argument or block"
	}
	detail := fmt.Sprintf("%s has no %s %q.%s", title, what, name, didYouMean(name, append(slices.Clone(arguments), blocks...)))
	if len(arguments) > 0 {
		detail += fmt.Sprintf(" Arguments: %s.", strings.Join(arguments, ", "))
	}
	if len(blocks) > 0 {
		detail += fmt.Sprintf(" Blocks: %s.", strings.Join(blocks, ", "))
	}
	if len(arguments)+len(blocks) == 0 {
		detail += " It takes nothing."
	}
	return errorAt(rng, "Unknown "+what, "%s", detail)
}

// nameAt is the name that stands in the file at rng, without JSON's quotes.
func nameAt(src *source, rng hcl.Range) string {
	if !rng.CanSliceBytes(src.file.Bytes) {
		return ""
	}
	raw := rng.SliceBytes(src.file.Bytes)
	var name string
	if src.json && json.Unmarshal(raw, &name) == nil {
		return name
	}
	return string(raw)
}

func (d *decoder) maskUnknown(body hcl.Body, name string) {
	as := &hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: name}}}
	content, _, _ := body.PartialContent(as) // what is wrong here has been said
	if a := content.Attributes[name]; a != nil {
		d.src.mask(a.Expr.Range())
	}
	if native, ok := body.(*hclsyntax.Body); ok {
		for _, b := range native.Blocks {
			if b.Type == name {
				d.src.maskBody(b.Body)
			}
		}
	}
}

// attribute checks one argument. A nil place means that it was left out (or is
// null); a nil value with a place, that it is wrong.
func (d *decoder) attribute(given *hcl.Attribute, a *schema.Attribute) (any, *node) {
	if given == nil {
		return nil, nil
	}
	name := strconv.Quote(a.Name)
	switch a.Shape {
	case schema.List:
		return d.list(given.Expr, a, name)
	case schema.Map:
		return d.mapping(given.Expr, a, name)
	}
	v, ok := d.eval(given.Expr)
	place := &node{rng: given.Expr.Range()}
	if !ok {
		return nil, place
	}
	if v.IsNull() {
		return nil, nil
	}
	return d.scalar(v, given.Expr, a, name), place
}

func (d *decoder) list(expr hcl.Expression, a *schema.Attribute, name string) (any, *node) {
	one, each := *a, "each element of "+name
	one.Shape = schema.Single
	place := &node{rng: expr.Range()}
	elements, diags := hcl.ExprList(expr)
	if diags.HasErrors() {
		return d.computedList(expr, &one, wants(a), name)
	}
	values := []any{}
	for _, e := range elements {
		place.items = append(place.items, &node{rng: e.Range()})
		var value any
		if v, ok := d.eval(e); ok {
			value = d.scalar(v, e, &one, each)
		}
		values = append(values, value)
	}
	return complete(values), place
}

// computedList checks an expression that is not written out as a list and may still
// give one. Its elements have no place but the expression's.
func (d *decoder) computedList(expr hcl.Expression, one *schema.Attribute, wanted, name string) (any, *node) {
	place := &node{rng: expr.Range()}
	v, ok := d.eval(expr)
	if !ok {
		return nil, place
	}
	if v.IsNull() {
		return nil, nil
	}
	if t := v.Type(); !t.IsTupleType() && !t.IsListType() {
		d.errorf(expr.Range(), "Wrong type", "%s wants %s, in brackets: [...]; this is %s.", name, wanted, kindOf(v))
		return nil, place
	}
	values := []any{}
	for it := v.ElementIterator(); it.Next(); {
		_, element := it.Element()
		place.items = append(place.items, &node{rng: expr.Range()})
		values = append(values, d.scalar(element, expr, one, "each element of "+name))
	}
	return complete(values), place
}

func (d *decoder) mapping(expr hcl.Expression, a *schema.Attribute, name string) (any, *node) {
	one := *a
	one.Shape = schema.Single
	place := &node{rng: expr.Range(), members: map[string]*node{}}
	pairs, diags := hcl.ExprMap(expr)
	values := map[string]any{}
	if diags.HasErrors() {
		return d.computedMap(expr, &one, wants(a), name)
	}
	for _, p := range pairs {
		key, ok := d.eval(p.Key)
		if !ok {
			continue
		}
		if key.Type() != cty.String || key.IsNull() || !key.IsKnown() {
			d.errorf(p.Key.Range(), "Wrong type", "A key of %s is text; this is %s.", name, kindOf(key))
			continue
		}
		k := key.AsString()
		if first := place.members[k]; first != nil {
			d.errorf(p.Key.Range(), "Duplicate key", "%s has this key already at %s.", name, rangeOf(first.rng))
			continue
		}
		place.members[k] = &node{rng: p.Value.Range()}
		element := d.elementName(a.Name, k) // before another value comes from the environment
		if v, ok := d.eval(p.Value); ok {
			values[k] = d.scalar(v, p.Value, &one, element)
		}
	}
	return values, place
}

// computedMap checks an expression that is not written out as a map and may still
// give one. Its elements have no place but the expression's.
func (d *decoder) computedMap(expr hcl.Expression, one *schema.Attribute, wanted, name string) (any, *node) {
	place := &node{rng: expr.Range(), members: map[string]*node{}}
	v, ok := d.eval(expr)
	if !ok {
		return nil, place
	}
	if v.IsNull() {
		return nil, nil
	}
	if t := v.Type(); !t.IsObjectType() && !t.IsMapType() {
		d.errorf(expr.Range(), "Wrong type", "%s wants %s; this is %s.", name, wanted, kindOf(v))
		return nil, place
	}
	values := map[string]any{}
	for it := v.ElementIterator(); it.Next(); {
		key, element := it.Element()
		k := key.AsString()
		place.members[k] = &node{rng: expr.Range()}
		values[k] = d.scalar(element, expr, one, d.elementName(one.Name, k))
	}
	return values, place
}

// elementName is how the element of a key, the last value that was evaluated, is
// called in a complaint.
func (d *decoder) elementName(name, key string) string {
	if d.env.secret {
		d.keep(key, false)
		return name + "[...]"
	}
	return fmt.Sprintf("%s[%q]", name, key)
}

// complete is a list, or nil if one of its elements is wrong.
func complete(values []any) any {
	if slices.Contains(values, nil) {
		return nil
	}
	return values
}

// scalar checks a value just evaluated.
func (d *decoder) scalar(v cty.Value, expr hcl.Expression, a *schema.Attribute, name string) any {
	hidden := a.Sensitive || d.env.secret
	value, wrong := scalar(v, a, name, d.env.used, hidden)
	if text, ok := value.(string); ok {
		if hidden {
			d.keep(text, a.Sensitive)
		}
		if wrong == nil {
			wrong = checkText(text, a, d.pattern(a.Pattern), name, told(hidden))
		}
		if wrong == nil {
			wrong = d.grant(text, expr, a, name, hidden)
		}
	}
	if wrong != nil {
		d.errorf(expr.Range(), wrong.summary, "%s", wrong.detail)
		return nil
	}
	return value
}

// keep keeps a text out of what a plugin says. Of what came from the environment
// the shortest is no secret, but may be in every sentence.
func (d *decoder) keep(text string, sensitive bool) {
	const shortest = 4
	if sensitive && text != "" || len(text) >= shortest {
		d.secrets = append(d.secrets, text)
	}
}

// pattern is a schema's pattern, anchored; nil: none.
func (d *decoder) pattern(p string) *regexp.Regexp {
	if p == "" {
		return nil
	}
	if re, ok := d.patterns[p]; ok {
		return re
	}
	if d.patterns == nil {
		d.patterns = map[string]*regexp.Regexp{}
	}
	re := regexp.MustCompile(`^(?:` + p + `)$`) // schema.Check has compiled it
	d.patterns[p] = re
	return re
}

// grant notes what a checked value opens.
func (d *decoder) grant(text string, expr hcl.Expression, a *schema.Attribute, name string, hidden bool) *fault {
	if text == "" || a.Opens == schema.Nothing {
		return nil
	}
	g, wrong := grant(text, a, name, told(hidden))
	if wrong != nil {
		return wrong
	}
	g.Range, g.Hidden = rangeOf(expr.Range()), hidden
	d.grants = append(d.grants, g)
	return nil
}

// eval gives an expression's value; d.env then tells whether the environment
// had a part in it.
func (d *decoder) eval(expr hcl.Expression) (cty.Value, bool) {
	d.env.used, d.env.secret = false, false
	if names := expr.Variables(); len(names) > 0 {
		for _, n := range names {
			d.errorf(n.SourceRange(), "Unknown name", `%s stands for nothing: a configuration has no variables. Text is written in quotes: "%s".`, n.RootName(), n.RootName())
		}
		return cty.DynamicVal, false
	}
	v, diags := expr.Value(d.env.context())
	for _, found := range diags {
		d.diags = append(d.diags, explainCall(found))
	}
	if diags.HasErrors() {
		return cty.DynamicVal, false
	}
	v, _ = v.UnmarkDeep()
	if !v.IsWhollyKnown() {
		d.errorf(expr.Range(), "Value not known", "This expression has no value before the daemon runs.")
		return cty.DynamicVal, false
	}
	return v, true
}

func hasSensitive(s *schema.Block) bool {
	return len(sensitiveNames(s)) > 0
}

// sensitiveNames are the names of all sensitive arguments in a schema.
func sensitiveNames(s *schema.Block) []string {
	var names []string
	for i := range s.Attributes {
		if s.Attributes[i].Sensitive {
			names = append(names, s.Attributes[i].Name)
		}
	}
	for i := range s.Blocks {
		names = append(names, sensitiveNames(&s.Blocks[i].Block)...)
	}
	return names
}

// checkSchema says what makes a plugin's schema unusable, or nil.
func checkSchema(s *schema.Block) error {
	taken := slices.ContainsFunc(s.Attributes, func(a schema.Attribute) bool { return a.Name == hostBlock }) ||
		slices.ContainsFunc(s.Blocks, func(b schema.NestedBlock) bool { return b.Name == hostBlock })
	if taken {
		return &schema.Broken{Problems: []string{hostBlock + " is reserved for the block that says how the host runs the plugin"}}
	}
	return schema.Check(*s)
}
