package config_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

func TestALiteralIsReadAsTheValueThatItWasWrittenFrom(t *testing.T) {
	for _, c := range []struct {
		a     schema.Attribute
		value any
		want  string
	}{
		{schema.Attribute{Type: schema.String}, "a \"b\"\n${c} %{d}", `"a \"b\"\n$${c} %%{d}"`},
		{schema.Attribute{Type: schema.String}, "\\ $ $${ é \x1b\t\r\u202e\U000e0001", `"\\ $ $$${ é \u001b\t\r\u202e\U000e0001"`},
		{schema.Attribute{Type: schema.Number}, 0.25, "0.25"},
		{schema.Attribute{Type: schema.Number}, 1e21, "1e+21"},
		{schema.Attribute{Type: schema.Integer}, int64(1<<63 - 1), "9223372036854775807"},
		{schema.Attribute{Type: schema.Bool}, true, "true"},
		{schema.Attribute{Type: schema.Duration}, 90 * time.Second, `"1m30s"`},
		{schema.Attribute{Type: schema.Duration}, time.Hour, `"1h"`},
		{schema.Attribute{Type: schema.Duration}, 10 * time.Minute, `"10m"`},
		{schema.Attribute{Type: schema.Duration}, time.Duration(0), `"0s"`},
		{schema.Attribute{Type: schema.Duration}, -time.Minute, `"-1m"`},
		{schema.Attribute{Type: schema.Size}, 64 << 20, `"64MiB"`},
		{schema.Attribute{Type: schema.Size}, 1000, `"1000B"`},
		{schema.Attribute{Type: schema.String, Shape: schema.List}, []string{}, "[]"},
		{schema.Attribute{Type: schema.Duration, Shape: schema.List}, []time.Duration{time.Second, 0}, `["1s", "0s"]`},
		{schema.Attribute{Type: schema.Size, Shape: schema.Map}, map[string]int{"b c": 1024, "a": 1}, `{ a = "1B", "b c" = "1KiB" }`},
		{schema.Attribute{Type: schema.Bool, Shape: schema.Map}, map[string]bool{}, "{}"},
	} {
		c.a.Name = "a"
		got, err := config.Literal(c.a, c.value)
		if err != nil || got != c.want {
			t.Errorf("%v: got %s %v, want %s", c.value, got, err, c.want)
			continue
		}
		f, _ := parser(nil).Parse("c.hcl", fmt.Appendf(nil, "sampler \"s\" { a = %s }\n", got))
		plugins, diags := f.DecodePlugins(func(config.PluginRef) (schema.Block, error) {
			return schema.Block{Attributes: []schema.Attribute{c.a}}, nil
		})
		if len(diags) > 0 {
			t.Errorf("%s: %s", got, asText(t, diags))
			continue
		}
		want, err := json.Marshal(map[string]any{"a": c.value})
		if err != nil || string(plugins[0].JSON) != string(want) {
			t.Errorf("%s was read as %s, not %s", got, plugins[0].JSON, want)
		}
	}
	if got, err := config.Literal(schema.Attribute{Name: "a", Type: schema.Bool}, "x"); err == nil {
		t.Errorf("got %s", got)
	}
}

// Whatever text is a default, it stands in the documents as what would be read as it.
func FuzzLiteral(f *testing.F) {
	for _, s := range []string{"", "a \"b\"\n", "$${%{", "\x00\u202e\U000e0001", `\u0041\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) || len(s) > 1<<10 || cty.NormalizeString(s) != s {
			return // none that a plugin can advertise, or that HCL keeps as it is
		}
		a := schema.Attribute{Name: "a", Type: schema.String}
		text, err := config.Literal(a, s)
		if err != nil {
			t.Fatal(err)
		}
		file, diags := parser(nil).Parse("c.hcl", fmt.Appendf(nil, "sampler \"s\" { a = %s }\n", text))
		plugins, found := file.DecodePlugins(func(config.PluginRef) (schema.Block, error) {
			return schema.Block{Attributes: []schema.Attribute{a}}, nil
		})
		if diags = config.Join(diags, found); len(diags) > 0 {
			t.Fatalf("%q as %s: %v", s, text, diags)
		}
		var got struct{ A string }
		if err := json.Unmarshal(plugins[0].JSON, &got); err != nil || got.A != s {
			t.Errorf("%q as %s came back as %q %v", s, text, got.A, err)
		}
	})
}
