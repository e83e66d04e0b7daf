package wire

import (
	"encoding/json"
	"fmt"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

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

// SchemaFromProto reads and checks a schema; an error about it is, or wraps, a
// *schema.Broken. Defaults come as json.RawMessage, which encoding/json writes as
// it is.
func SchemaFromProto(p *protov1.Block) (schema.Block, error) {
	b, ok := readBlock(p, schema.MaxDepth)
	if !ok {
		return schema.Block{}, &schema.Broken{Problems: []string{fmt.Sprintf("blocks nest deeper than %d", schema.MaxDepth)}}
	}
	if err := schema.Check(b); err != nil {
		return schema.Block{}, err
	}
	return b, nil
}

// readBlock gives up on what nests deeper than depth: it recurses.
func readBlock(p *protov1.Block, depth int) (schema.Block, bool) {
	if depth == 0 {
		return schema.Block{}, false
	}
	out := schema.Block{Doc: p.GetDoc()}
	for _, a := range p.GetAttributes() {
		out.Attributes = append(out.Attributes, readAttribute(a))
	}
	for _, n := range p.GetBlocks() {
		inner, ok := readBlock(n.GetBlock(), depth-1)
		if !ok {
			return schema.Block{}, false
		}
		out.Blocks = append(out.Blocks, schema.NestedBlock{
			Name: n.GetName(), Block: inner, MinItems: int(n.GetMinItems()), MaxItems: int(n.GetMaxItems()),
		})
	}
	return out, true
}

func readAttribute(p *protov1.Attribute) schema.Attribute {
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
	if raw := p.GetDefaultJson(); len(raw) > 0 {
		a.Default = json.RawMessage(raw)
	}
	return a
}
