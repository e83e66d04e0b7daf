package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// placing is a plugin with something to find at every sort of path.
func placing(config.PluginRef) (schema.Block, error) {
	text := schema.Attribute{Name: "text", Type: schema.String}
	return schema.Block{
		Attributes: []schema.Attribute{
			text,
			{Name: "list", Type: schema.Integer, Shape: schema.List},
			{Name: "map", Type: schema.String, Shape: schema.Map},
			{Name: "token", Type: schema.String, Shape: schema.List, Sensitive: true},
		},
		Blocks: []schema.NestedBlock{
			{Name: "level", Block: schema.Block{Attributes: []schema.Attribute{text}, Blocks: []schema.NestedBlock{{Name: "deep", Block: schema.Block{Attributes: []schema.Attribute{text}}}}}},
			{Name: "none", Block: schema.Block{Attributes: []schema.Attribute{text}}},
		},
	}, nil
}

// sampled is the configuration of the one plugin in a file.
func sampled(t *testing.T, env map[string]string, name, src string) config.PluginConfig {
	t.Helper()
	f, diags := parser(env).Parse(name, []byte(src))
	plugins, found := f.DecodePlugins(placing)
	if diags = config.Join(diags, found); len(diags) > 0 || len(plugins) != 1 {
		t.Fatal(asText(t, diags))
	}
	return plugins[0]
}

func TestAFindingStandsAtTheValueThatItsPathNames(t *testing.T) {
	hcl := sampled(t, nil, "c.hcl", `sampler "s" {
  text = "t"
  list = [
    1, 2,
  ]
  map = {
    a     = "1"
    "b c" = "2"
  }
  level {}
  level {
    text = "u"
    deep { text = "v" }
  }
}
`)
	json := sampled(t, nil, "c.json", `{"sampler": {"s": {
  "text": "t",
  "list": [
    1, 2],
  "map": {
    "a": "1",
    "b c": "2"},
  "level": [
    {},
    {
      "text": "u",
      "deep": {"text": "v"}}]
}}}`)
	a, i, k := func(s string) diag.Step { return diag.Attr(s) }, func(n int) diag.Step { return diag.Index(n) }, func(s string) diag.Step { return diag.Key(s) }
	for _, c := range []struct {
		path      diag.Path
		hcl, json string // "": the path is written out
		said      bool
	}{
		{diag.Path{}, "1:1", "1:19", false},
		{diag.Path{a("text")}, "2:10", "2:11", false},
		{diag.Path{a("list")}, "3:10", "3:11", false},
		{diag.Path{a("list"), i(1)}, "4:8", "4:8", false},
		{diag.Path{a("list"), i(2)}, "3:10", "3:11", true},
		{diag.Path{a("list"), i(-1)}, "3:10", "3:11", true},
		{diag.Path{a("list"), k("1")}, "3:10", "3:11", true},
		{diag.Path{a("map"), k("b c")}, "8:13", "7:12", false},
		{diag.Path{a("map"), k("d")}, "6:9", "5:10", true},
		{diag.Path{a("map"), i(0)}, "6:9", "5:10", true},
		{diag.Path{a("level")}, "10:3", "9:5", false},
		{diag.Path{a("level"), i(0)}, "10:3", "9:5", false},
		{diag.Path{a("level"), i(1)}, "11:3", "10:5", false},
		{diag.Path{a("level"), i(1), a("text")}, "12:12", "11:15", false},
		{diag.Path{a("level"), i(1), a("deep"), i(0), a("text")}, "13:19", "12:24", false},
		{diag.Path{a("level"), i(1), a("deep"), a("text")}, "13:19", "12:24", false},
		{diag.Path{a("level"), i(0), a("text")}, "10:3", "9:5", true},
		{diag.Path{a("level"), i(0), a("deep"), i(0), a("text")}, "10:3", "9:5", true},
		{diag.Path{a("level"), i(2)}, "1:1", "1:19", true},
		{diag.Path{a("none")}, "1:1", "1:19", false},
		{diag.Path{a("none"), i(0), a("text")}, "1:1", "1:19", true},
		{diag.Path{a("token")}, "1:1", "1:19", true},
		{diag.Path{a("no_such")}, "1:1", "1:19", true},
		{diag.Path{i(0)}, "1:1", "1:19", true},
	} {
		for _, in := range []struct {
			config config.PluginConfig
			want   string
		}{{hcl, "c.hcl:" + c.hcl}, {json, "c.json:" + c.json}} {
			ds := in.config.Diagnostics(diag.Diagnostics{diag.Errorf(c.path, "wrong", "why")})
			want := "why"
			if c.said {
				want = fmt.Sprintf("At %s: why", c.path)
			}
			if len(ds) != 1 || ds[0].Range.String() != in.want || ds[0].Detail != want {
				t.Errorf("%s: got %v, want %s and %q", c.path, ds, in.want, want)
			}
		}
	}
}

func TestAPluginThatSaysTooMuchIsCutShort(t *testing.T) {
	c := sampled(t, nil, "c.hcl", "sampler \"s\" {}\n")
	var found diag.Diagnostics
	for range 100 {
		found = append(found, diag.Diagnostic{Severity: diag.Warning, Summary: strings.Repeat("é", 500), Detail: strings.Repeat("d", 10_000),
			Path: diag.Path{diag.Key(strings.Repeat("k", 10_000))}})
	}
	found = append(found, diag.Diagnostic{Severity: diag.Warning}, diag.Diagnostic{})
	ds := c.Diagnostics(found)
	if len(ds) != 101 || len(ds[0].Summary) > 210 || len(ds[0].Detail) > 4400 || !strings.HasSuffix(ds[0].Summary, "é…") {
		t.Errorf("got %d, the first %v", len(ds), ds[0])
	}
	if errs, warnings := ds.Count(); errs != 1 || warnings != 100 || ds[100].Detail != `sampler "s" has 2 more to say.` {
		t.Errorf("got %d errors, %d warnings, the last %v", errs, warnings, ds[100])
	}
	if ds := c.Diagnostics(diag.Diagnostics{{}}); ds[0].Summary == "" || ds[0].Detail == "" {
		t.Errorf("nothing is said of %v", ds[0])
	}
}

func TestWhatIsSecretIsNotShownWhenAPluginRepeatsIt(t *testing.T) {
	c := sampled(t, map[string]string{"WORD": "Hunter2", "ONE": "1"}, "c.hcl", `sampler "s" {
  token = ["sesame", "sesame open", "a\"b\n"]
  text  = env("WORD")
  map   = { one = env("ONE"), Hunter2 = "x" }
}
`)
	ds := c.Diagnostics(diag.Diagnostics{diag.Errorf(diag.Path{diag.Attr("Hunter2")}, "sesame is bad", "Not sesame open, %q, a\"b\n, Hunter2 or 1.", "a\"b\n")})
	if got, want := ds[0].Summary+": "+ds[0].Detail, `*** is bad: At ***: Not ***, "***", ***, *** or 1.`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTextOfAPluginDoesNotReachTheTerminalAsMoreThanText(t *testing.T) {
	c := sampled(t, nil, "c.hcl", "sampler \"s\" {}\n")
	got := asText(t, c.Diagnostics(diag.Diagnostics{diag.Errorf(nil, "a\x1b[2J", "b\u202ec\rd")}))
	if strings.ContainsAny(got, "\x1b\r\u202e") {
		t.Errorf("got %q", got)
	}
}

func TestFindingsAreExplainedInOneLine(t *testing.T) {
	c := sampled(t, nil, "c.hcl", "sampler \"s\" {\n  text = \"a\"\n}\n")
	got := c.Explain(diag.Diagnostics{
		diag.Errorf(diag.Path{diag.Attr("text")}, "wrong", "so\nit is\x1b."),
		{Severity: diag.Warning, Summary: "odd", Detail: "But goes.", Path: diag.Path{diag.Attr("list")}},
	})
	if want := "c.hcl:1:1: odd: At list: But goes.; c.hcl:2:10: wrong: so it is\ufffd."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAKeyFromTheEnvironmentIsNotShown(t *testing.T) {
	for _, argument := range []string{`map = { (env("WORD")) = 1 }`, `map = { for k in [env("WORD")] : k => 1 }`} {
		f, diags := parser(map[string]string{"WORD": "Hunter2"}).Parse("c.hcl", []byte("sampler \"s\" { "+argument+" }\n"))
		_, found := f.DecodePlugins(placing)
		got := asText(t, config.Join(diags, found))
		if !strings.Contains(got, "map[...] wants text") || strings.Contains(got, "Hunter2") {
			t.Errorf("got %s", got)
		}
	}
}
