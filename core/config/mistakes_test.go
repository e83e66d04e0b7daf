package config_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what was found as what is wanted")

// Each file of testdata/mistakes holds a configuration in one or both syntaxes,
// as config.hcl and config.hcl.json, and what is said of each, as NAME.want.
func TestEveryMistakeIsExplainedAtItsPlace(t *testing.T) {
	files, err := filepath.Glob("testdata/mistakes/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	env := map[string]string{"LEVEL": "loud", "SECRET": "Hunter2", "PORT": "many"}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			var out []txtar.File
			for _, f := range archive.Files {
				if name, ok := strings.CutSuffix(f.Name, ".want"); ok {
					want[name] = string(f.Data)
				}
			}
			for _, f := range archive.Files {
				if strings.HasSuffix(f.Name, ".want") {
					continue
				}
				_, _, diags := check(t, parser(env), f.Name, f.Data)
				got := asText(t, diags)
				if strings.Contains(got, "Hunter2") || strings.Contains(got, "sesame") {
					t.Errorf("%s: a secret is shown:\n%s", f.Name, got)
				}
				for _, d := range diags {
					if d.Range.Filename != f.Name || d.Range.Start.Line < 1 || d.Range.Start.Column < 1 {
						t.Errorf("%s: no place: %v", f.Name, d)
					}
				}
				if !*update && got != want[f.Name] {
					t.Errorf("%s: got\n%s\nwant\n%s", f.Name, got, want[f.Name])
				}
				out = append(out, f, txtar.File{Name: f.Name + ".want", Data: []byte(got)})
			}
			if *update {
				archive.Files = out
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
