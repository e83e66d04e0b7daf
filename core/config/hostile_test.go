package config_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

func TestTheCoresOwnSchemasAreRight(t *testing.T) {
	for title, s := range config.CoreSchemas() {
		if err := schema.Check(s); err != nil {
			t.Errorf("%s: %v", title, err)
		}
	}
}

// The largest schema, and a file as large as one writes by hand at most.
func TestAHugeSchemaAndAHugeFileEnd(t *testing.T) {
	b := schema.Block{}
	for i := range schema.MaxArguments - schema.MaxDepth + 1 {
		b.Attributes = append(b.Attributes, schema.Attribute{
			Name: fmt.Sprintf("a%d", i), Type: schema.String, Shape: schema.List, Pattern: strings.Repeat("(x{0,9}){0,9}", 10), Sensitive: i%2 == 0,
		})
	}
	for range schema.MaxDepth - 1 {
		b = schema.Block{Blocks: []schema.NestedBlock{{Name: "b", Block: b}}}
	}
	if err := schema.Check(b); err != nil {
		t.Fatal(err)
	}
	var src strings.Builder
	src.WriteString("sampler \"s\" {\n" + strings.Repeat("b {\n", schema.MaxDepth-1))
	for i := 0; src.Len() < 200<<10; i++ {
		fmt.Fprintf(&src, "a%d = [%s]\n", i, strings.Repeat(`"x",`, 250))
	}
	src.WriteString(strings.Repeat("}\n", schema.MaxDepth))
	began := time.Now()
	f, diags := parser(nil).Parse("c.hcl", []byte(src.String()))
	_, more := f.DecodePlugins(func(config.PluginRef) (schema.Block, error) { return b, nil })
	if diags = config.Join(diags, more); diags.HasErrors() {
		t.Error(diags[0])
	}
	t.Logf("%d bytes took %s", src.Len(), time.Since(began))
}

// Whatever a plugin says its schema is, and whatever stands in its block, the steps
// end, and what is found can be shown.
func FuzzHostileSchema(f *testing.F) {
	for title, s := range schemas() {
		p, err := wire.SchemaToProto(s)
		if err != nil {
			f.Fatal(err)
		}
		raw, err := proto.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, false, "sampler \"s\" {\n  host = \"unix:///a\"\n  rate = 1\n}\n")
		f.Add(raw, true, `{"sampler": {"s": {"level": [{"below": 1}, {}], "`+strings.Trim(title, `"`)+`": 1}}}`)
	}
	f.Fuzz(func(t *testing.T, raw []byte, json bool, src string) {
		if len(src) > 1<<13 {
			return // larger inputs only take longer
		}
		var p protov1.Block
		if proto.Unmarshal(raw, &p) != nil {
			return
		}
		name := "c.hcl"
		if json {
			name = "c.json"
		}
		file, diags := parser(nil).Parse(name, []byte(src))
		plugins, more := file.DecodePlugins(func(config.PluginRef) (schema.Block, error) { return wire.SchemaFromProto(&p) })
		for _, c := range plugins {
			if len(c.JSON) == 0 {
				t.Fatalf("%s has no configuration and no error", c.Ref)
			}
		}
		if err := config.Join(diags, more).Write(io.Discard, config.TextOptions{Width: 80}); err != nil {
			t.Fatal(err)
		}
	})
}
