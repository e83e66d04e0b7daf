package wire

import (
	"encoding/json"
	"fmt"
	"regexp"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// maxDepth is how deep blocks of a schema may nest.
const maxDepth = 16

// name is what an attribute or a block may be called.
const name = `^[a-z][a-z0-9_]*$`

// SchemaToProto writes a schema as a message. The error names the attribute
// whose default can't be written as JSON.
func SchemaToProto(b schema.Block) (*protov1.Block, error) {
	out := &protov1.Block{Doc: b.Doc}
	for _, a := range b.Attributes {
		p := &protov1.Attribute{
			Name:       a.Name,
			Type:       protov1.Attribute_Type(a.Type),
			Shape:      protov1.Attribute_Shape(a.Shape),
			Required:   a.Required,
			Doc:        a.Doc,
			Sensitive:  a.Sensitive,
			Deprecated: a.Deprecated,
			Enum:       a.Enum,
			Min:        a.Min,
			Max:        a.Max,
			Pattern:    a.Pattern,
			Opens:      protov1.Attribute_Opens(a.Opens),
		}
		if a.Default != nil {
			j, err := json.Marshal(a.Default)
			if err != nil {
				return nil, fmt.Errorf("write the default of %q as JSON: %w", a.Name, err)
			}
			p.DefaultJson = j
		}
		out.Attributes = append(out.Attributes, p)
	}
	for _, n := range b.Blocks {
		inner, err := SchemaToProto(n.Block)
		if err != nil {
			return nil, fmt.Errorf("block %q: %w", n.Name, err)
		}
		out.Blocks = append(out.Blocks, &protov1.NestedBlock{
			Name: n.Name, Block: inner, MinItems: uint32(n.MinItems), MaxItems: uint32(n.MaxItems),
		})
	}
	return out, nil
}

// SchemaFromProto reads and checks a schema. Defaults come as json.RawMessage,
// which encoding/json writes as it is.
func SchemaFromProto(p *protov1.Block) (schema.Block, error) {
	return readBlock(p, regexp.MustCompile(name), maxDepth)
}

func readBlock(p *protov1.Block, names *regexp.Regexp, depth int) (schema.Block, error) {
	if depth == 0 {
		return schema.Block{}, fmt.Errorf("blocks nest deeper than %d", maxDepth)
	}
	out := schema.Block{Doc: p.GetDoc()}
	seen := map[string]bool{}
	unique := func(n string) error {
		switch {
		case !names.MatchString(n):
			return fmt.Errorf("the name %q does not match %s", n, name)
		case seen[n]:
			return fmt.Errorf("the name %q stands there twice", n)
		}
		seen[n] = true
		return nil
	}
	for _, a := range p.GetAttributes() {
		if err := unique(a.GetName()); err != nil {
			return schema.Block{}, err
		}
		attr, err := readAttribute(a)
		if err != nil {
			return schema.Block{}, fmt.Errorf("attribute %q: %w", a.GetName(), err)
		}
		out.Attributes = append(out.Attributes, attr)
	}
	for _, n := range p.GetBlocks() {
		if err := unique(n.GetName()); err != nil {
			return schema.Block{}, err
		}
		inner, err := readBlock(n.GetBlock(), names, depth-1)
		if err != nil {
			return schema.Block{}, fmt.Errorf("block %q: %w", n.GetName(), err)
		}
		if n.GetMaxItems() != 0 && n.GetMaxItems() < n.GetMinItems() {
			return schema.Block{}, fmt.Errorf("block %q: at most %d but at least %d", n.GetName(), n.GetMaxItems(), n.GetMinItems())
		}
		out.Blocks = append(out.Blocks, schema.NestedBlock{
			Name: n.GetName(), Block: inner, MinItems: int(n.GetMinItems()), MaxItems: int(n.GetMaxItems()),
		})
	}
	return out, nil
}

func readAttribute(p *protov1.Attribute) (schema.Attribute, error) {
	a := schema.Attribute{
		Name:       p.GetName(),
		Type:       schema.Type(p.GetType()),
		Shape:      schema.Shape(p.GetShape()),
		Required:   p.GetRequired(),
		Doc:        p.GetDoc(),
		Sensitive:  p.GetSensitive(),
		Deprecated: p.GetDeprecated(),
		Enum:       p.GetEnum(),
		Min:        p.Min,
		Max:        p.Max,
		Pattern:    p.GetPattern(),
		Opens:      schema.Opens(p.GetOpens()),
	}
	if a.Type < schema.String || a.Type > schema.Size {
		return a, fmt.Errorf("type %d is not known: the plugin is newer than this daemon", p.GetType())
	}
	if a.Shape < schema.Single || a.Shape > schema.Map {
		return a, fmt.Errorf("shape %d is not known: the plugin is newer than this daemon", p.GetShape())
	}
	if a.Opens < schema.Nothing || a.Opens > schema.Network {
		return a, fmt.Errorf("what it opens, %d, is not known: the plugin is newer than this daemon", p.GetOpens())
	}
	if a.Opens != schema.Nothing && a.Type != schema.String {
		return a, fmt.Errorf("it opens something, but is no text")
	}
	if a.Min != nil && a.Max != nil && *a.Min > *a.Max {
		return a, fmt.Errorf("its minimum %g is above its maximum %g", *a.Min, *a.Max)
	}
	if _, err := regexp.Compile(a.Pattern); err != nil {
		return a, fmt.Errorf("read its pattern: %w", err)
	}
	if raw := p.GetDefaultJson(); len(raw) > 0 {
		if !json.Valid(raw) {
			return a, fmt.Errorf("its default is not JSON")
		}
		a.Default = json.RawMessage(raw)
	}
	return a, nil
}
