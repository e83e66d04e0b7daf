package config_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// opener is a plugin whose arguments open everything, at every depth.
func opener(config.PluginRef) (schema.Block, error) {
	return schema.Block{
		Attributes: []schema.Attribute{
			{Name: "socket", Type: schema.String, Default: "/run/default.sock", Opens: schema.Socket},
			{Name: "files", Type: schema.String, Shape: schema.List, Default: []string{"/etc/default"}, Opens: schema.Path},
			{Name: "servers", Type: schema.String, Shape: schema.Map, Opens: schema.Network},
			{Name: "token", Type: schema.String, Opens: schema.Path, Sensitive: true},
			{Name: "plain", Type: schema.String},
		},
		Blocks: []schema.NestedBlock{{Name: "outer", Block: schema.Block{Blocks: []schema.NestedBlock{{Name: "inner", Block: schema.Block{
			Attributes: []schema.Attribute{{Name: "sockets", Type: schema.String, Shape: schema.List, Opens: schema.Socket}},
		}}}}}},
	}, nil
}

// granted are the grants of a configuration, one a line.
func granted(t *testing.T, name, src string) ([]string, config.Diagnostics) {
	t.Helper()
	f, diags := parser(map[string]string{"DIR": "/srv"}).Parse(name, []byte(src))
	plugins, found := f.DecodePlugins(opener)
	got := []string{}
	for _, p := range plugins {
		for _, g := range p.Grants() {
			what := []string{"nothing", "socket", "path", "network"}[g.Opens]
			hidden := ""
			if g.Hidden {
				hidden = " hidden"
			}
			got = append(got, fmt.Sprintf("%s %s %s%s", g.Range, what, g.Value, hidden))
		}
	}
	return got, config.Join(diags, found)
}

func TestWhatTheOperatorWroteIsGrantedAtEveryDepth(t *testing.T) {
	for _, c := range []struct {
		name, file, src string
		want            []string
	}{
		{"defaults grant nothing", "c.hcl", "mesh \"m\" {}\nsampler \"s\" {}\n", []string{}},
		{"nor does null, or empty text, or what opens nothing", "c.hcl", `
mesh "m" {
  socket = null
  files  = ["", ""]
  plain  = "/etc/shadow"
}
sampler "s" {}
`, []string{}},
		{"a default that is written out counts as written", "c.hcl", "mesh \"m\" { socket = \"/run/default.sock\" }\nsampler \"s\" {}\n",
			[]string{"c.hcl:1:21 socket /run/default.sock"}},
		{"everywhere, with places", "c.hcl", `
mesh "m" {
  socket  = "unix:///run/../run/a.sock"
  files   = ["/a", "${env("DIR")}/b/"]
  servers = { one = "10.0.0.1:80", two = "https://two/" }
  token   = "/secret"
  outer {}
  outer {
    inner { sockets = ["/b.sock", "tcp://1.2.3.4:2375"] }
    inner { sockets = [for n in ["c", "d"] : "unix:///${n}"] }
  }
}
sampler "s" {}
`, []string{
			"c.hcl:3:13 socket /run/a.sock",
			"c.hcl:4:14 path /a",
			"c.hcl:4:20 path /srv/b hidden",
			"c.hcl:5:21 network 10.0.0.1:80",
			"c.hcl:5:42 network https://two/",
			"c.hcl:6:13 path /secret hidden",
			"c.hcl:9:24 socket /b.sock",
			"c.hcl:9:35 network tcp://1.2.3.4:2375",
			"c.hcl:10:23 socket /c",
			"c.hcl:10:23 socket /d",
		}},
		{"in JSON alike", "c.json", `{"sampler": {"s": {}}, "mesh": {"m": {
  "socket": "unix:///run/a.sock",
  "servers": {"one": "10.0.0.1:80"},
  "outer": {"inner": [{"sockets": ["/b.sock"]}, {}]}
}}}`, []string{
			"c.json:2:13 socket /run/a.sock",
			"c.json:3:22 network 10.0.0.1:80",
			"c.json:4:36 socket /b.sock",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, diags := granted(t, c.file, c.src)
			if len(diags) > 0 {
				t.Fatal(asText(t, diags))
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func TestAPathThatIsNotAbsoluteOpensNothing(t *testing.T) {
	for _, c := range []struct{ argument, want string }{
		{`socket = "run/a.sock"`, `c.hcl:1:21: Malformed path: "socket" wants the absolute path of a socket, "/run/name.sock" or "unix:///run/name.sock", or an address with its scheme; this is "run/a.sock".`},
		{`socket = "unix://a.sock"`, `this is "unix://a.sock".`},
		{`socket = "@abstract"`, `this is "@abstract".`},
		{`socket = "127.0.0.1:2375"`, `this is "127.0.0.1:2375".`},
		{`files = ["/a", "../b"]`, `c.hcl:1:27: Malformed path: each element of "files" wants an absolute path, such as "/run/name"; this is "../b".`},
		{`files = ["/a\u0000b"]`, `Malformed path`},
		{`token = "secret"`, `"token" wants an absolute path, such as "/run/name"; the value is not shown.`},
	} {
		got, diags := granted(t, "c.hcl", "mesh \"m\" { "+c.argument+" }\nsampler \"s\" {}\n")
		if len(diags) != 1 || !strings.Contains(diags[0].Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.argument, diags, c.want)
		}
		if len(got) > 0 {
			t.Errorf("%s: granted %v", c.argument, got)
		}
	}
}

func TestASchemaThatOpensWhatIsNoTextIsRefused(t *testing.T) {
	for _, c := range []struct {
		a    schema.Attribute
		want string
	}{
		{schema.Attribute{Name: "a", Type: schema.Integer, Opens: schema.Socket}, "a opens something, but is no text"},
		{schema.Attribute{Name: "a", Type: schema.String, Opens: schema.Network + 1}, "opens, 4, is not known"},
		{schema.Attribute{Name: "a", Type: schema.String, Opens: -1}, "opens, -1, is not known"},
	} {
		f, _ := parser(nil).Parse("c.hcl", []byte("sampler \"s\" {}\n"))
		_, diags := f.DecodePlugins(func(config.PluginRef) (schema.Block, error) {
			return schema.Block{Attributes: []schema.Attribute{c.a}}, nil
		})
		if len(diags) != 1 || diags[0].Summary != "Broken plugin" || !strings.Contains(diags[0].Detail, c.want) {
			t.Errorf("%+v: got %v", c.a, diags)
		}
	}
}
