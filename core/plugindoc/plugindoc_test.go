package plugindoc_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/plugindoc"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

var update = flag.Bool("update", false, "write what was found as what is wanted")

// everything is a plugin that has everything that there is.
func everything() plugindoc.Plugin {
	return plugindoc.Plugin{
		Manifest: config.Manifest{
			Kind: config.Mesh, Name: "everything", Protocol: 1, Command: []string{"./everything", "-x"},
			Needs: config.Needs{Sockets: []string{"/run/a.sock", "/run/b.sock"}, Paths: []string{"/etc/a"},
				Capabilities: []string{"CAP_SYS_PTRACE"}, Env: []string{"A", "B"}, Network: true, Root: true},
		},
		File: "/plugins/mesh/everything.plugin.hcl", Program: "/plugins/mesh/everything", Digest: strings.Repeat("0a", 32),
		Version: "v1.2.3", Doc: "Has everything there is. And <b>more</b> of\nit, *really* | `so`.\x1b[2J",
		Schema: schema.Block{
			Doc: "All of it.",
			Attributes: []schema.Attribute{
				{Name: "text", Type: schema.String, Default: "a|b", Doc: "Some text."},
				{Name: "level", Type: schema.String, Required: true, Enum: []string{"low", "high"}},
				{Name: "name", Type: schema.String, Required: true, Pattern: `[a-z0-9]+(x|y){2}`, Doc: "A name that is matched."},
				{Name: "clever", Type: schema.String, Required: true, Pattern: `a\bb|c$^d|[^\x00-\x{10ffff}]`, Doc: "No text matches it."},
				{Name: "number", Type: schema.Number, Default: 0.5, Min: schema.Bound(0), Max: schema.Bound(1)},
				{Name: "timeout", Type: schema.Duration, Required: true, Min: schema.Bound(time.Minute)},
				{Name: "sizes", Type: schema.Size, Shape: schema.Map, Max: schema.Bound(1 << 10)},
				{Name: "ports", Type: schema.Integer, Shape: schema.List, Required: true, Min: schema.Bound(80), Max: schema.Bound(90)},
				{Name: "socket", Type: schema.String, Pattern: `unix:///.+`, Default: "unix:///run/a.sock", Opens: schema.Socket},
				{Name: "files", Type: schema.String, Shape: schema.List, Opens: schema.Path},
				{Name: "server", Type: schema.String, Opens: schema.Network},
				{Name: "token", Type: schema.String, Default: "sesame", Sensitive: true},
				{Name: "old", Type: schema.Bool, Default: false, Deprecated: "use text."},
			},
			Blocks: []schema.NestedBlock{
				{Name: "one", MinItems: 1, MaxItems: 1, Block: schema.Block{Doc: "There is one.", Attributes: []schema.Attribute{
					{Name: "on", Type: schema.Bool, Required: true, Doc: "Whether."},
				}, Blocks: []schema.NestedBlock{{Name: "deep", MaxItems: 3, Block: schema.Block{Attributes: []schema.Attribute{
					{Name: "a", Type: schema.Integer, Required: true}, {Name: "long_one", Type: schema.Integer, Default: 7},
				}}}}}},
				{Name: "empty"},
			},
		},
	}
}

func writers() map[string]func(io.Writer) error {
	p := everything()
	return map[string]func(io.Writer) error{
		"everything.txt":  func(w io.Writer) error { return plugindoc.Text(w, p) },
		"everything.md":   func(w io.Writer) error { return plugindoc.Markdown(w, p) },
		"everything.hcl":  func(w io.Writer) error { return plugindoc.HCL(w, p) },
		"everything.json": func(w io.Writer) error { return plugindoc.JSON(w, []plugindoc.Plugin{p}) },
		"index.md":        func(w io.Writer) error { return plugindoc.MarkdownIndex(w, []plugindoc.Plugin{p, {}}) },
	}
}

func TestAPluginWithEverythingIsWrittenDownAsExpected(t *testing.T) {
	for name, write := range writers() {
		var got bytes.Buffer
		if err := write(&got); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got.Bytes(), want)
		}
		if bytes.Contains(got.Bytes(), []byte("sesame")) || bytes.Contains(got.Bytes(), []byte("\x1b")) {
			t.Errorf("%s shows a secret, or writes more than text:\n%s", name, got.Bytes())
		}
		if filepath.Ext(name) == ".json" && !json.Valid(got.Bytes()) {
			t.Errorf("%s is no JSON", name)
		}
	}
}

func TestTheBlockToBeginWithIsRightAndSoIsWhatIsCommentedOut(t *testing.T) {
	p := everything()
	for i := range p.Schema.Attributes {
		if a := &p.Schema.Attributes[i]; a.Name == "clever" {
			a.Pattern = "" // which only the operator can meet
		}
	}
	var text bytes.Buffer
	if err := plugindoc.HCL(&text, p); err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string]string{
		"as it is": text.String(), "with the comments": strings.ReplaceAll(text.String(), "# ", ""),
	} {
		f, diags := config.Parse("c.hcl", []byte(src+"sampler \"s\" {}\n"))
		_, found := f.DecodePlugins(func(ref config.PluginRef) (schema.Block, error) {
			if ref.Name == "s" {
				return schema.Block{}, nil
			}
			return p.Schema, nil
		})
		if diags = config.Join(diags, found); len(diags) > 0 {
			t.Errorf("%s: %v\n%s", name, diags, src)
		}
	}
}

func TestAPluginThatTakesNothingSaysSo(t *testing.T) {
	p := plugindoc.Plugin{Manifest: config.Manifest{Kind: config.Sampler, Name: "none"}}
	var hcl, text bytes.Buffer
	if err := plugindoc.HCL(&hcl, p); err != nil || hcl.String() != "sampler \"none\" {}\n" {
		t.Errorf("got %s %v", hcl.String(), err)
	}
	if err := plugindoc.Text(&text, p); err != nil || !strings.Contains(text.String(), "It takes no arguments.") {
		t.Errorf("got %s %v", text.String(), err)
	}
}
