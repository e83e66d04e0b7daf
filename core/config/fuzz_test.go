package config_test

import (
	"io"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
)

// Whatever stands in a file, the steps end, and each finding can be shown.
func FuzzParse(f *testing.F) {
	f.Add(false, fullHCL)
	f.Add(true, fullJSON)
	files, err := filepath.Glob("testdata/mistakes/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range archive.Files {
			f.Add(filepath.Ext(part.Name) == ".json", string(part.Data))
		}
	}
	f.Fuzz(func(t *testing.T, json bool, src string) {
		if len(src) > 1<<14 {
			return // larger inputs only take longer
		}
		name := "config.hcl"
		if json {
			name += ".json"
		}
		file, plugins, diags := check(t, parser(map[string]string{"A": "b"}), name, []byte(src))
		if file == nil {
			t.Fatal("no file")
		}
		if err := diags.Write(io.Discard, config.TextOptions{Width: 80, Color: true}); err != nil {
			t.Fatal(err)
		}
		if !diags.HasErrors() && len(plugins) != len(file.Plugins()) {
			t.Fatalf("%d of %d plugins, and no error", len(plugins), len(file.Plugins()))
		}
		if !diags.HasErrors() && file.Config.Node.Name == "" {
			t.Fatal("a node without a name, and no error")
		}
	})
}
