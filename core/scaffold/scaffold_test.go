package scaffold

import (
	"bytes"
	"go/format"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
)

// sdk is the SDK of this checkout.
const sdk = "../../sdk"

func kinds() []config.PluginKind {
	return []config.PluginKind{config.Discoverer, config.Mesh, config.Sampler}
}

func read(t *testing.T, parts ...string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestWhatIsMadeCanBeRead(t *testing.T) {
	for _, kind := range kinds() {
		t.Run(string(kind), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "made")
			s, err := Make(Options{Kind: kind, Name: "my-own", SDK: sdk, Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range s.Files {
				text := read(t, s.Dir, name)
				if bytes.Contains(text, []byte("{{.")) || bytes.Contains(text, []byte("<no value>")) {
					t.Errorf("%s is not filled: %s", name, text)
				}
				if strings.HasSuffix(name, ".go") {
					if good, err := format.Source(text); err != nil || !bytes.Equal(good, text) {
						t.Errorf("%s is not formatted: %v", name, err)
					}
				}
			}
			m, err := config.ParseManifest("m", read(t, dir, s.Binary+".plugin.hcl"))
			if err != nil || m.Kind != kind || m.Name != "my-own" || m.Command[0] != "./my-own" {
				t.Errorf("the manifest is %+v, %v", m, err)
			}
			f, found := config.ReadFile(filepath.Join(dir, "config.hcl"))
			if found.HasErrors() || !slices.ContainsFunc(f.Plugins(), func(r config.PluginRef) bool { return r.Kind == kind && r.Name == "my-own" }) {
				t.Errorf("config.hcl names %v: %v", f.Plugins(), found)
			}
			if dirs := f.Config.Plugins.Dirs; len(dirs) != 1 || filepath.Join(dirs[0], string(kind), "my-own") != filepath.Join(dir, s.Binary) {
				t.Errorf("config.hcl looks for plugins in %v, the binary goes to %s", dirs, s.Binary)
			}
			mod, err := modfile.Parse("go.mod", read(t, dir, "go.mod"), nil)
			if err != nil || len(mod.Replace) != 1 || len(mod.Require) < 5 {
				t.Fatalf("go.mod: %v\n%s", err, read(t, dir, "go.mod"))
			}
			if _, err := os.Stat(filepath.Join(dir, mod.Replace[0].New.Path, "go.mod")); err != nil {
				t.Errorf("go.mod does not lead to the SDK: %v", err)
			}
		})
	}
}

func TestWithoutAnSDKItSaysWhatToDo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	if _, err := Make(Options{Kind: config.Sampler, Name: "x", Dir: dir}); err != nil {
		t.Fatal(err)
	}
	mod := read(t, dir, "go.mod")
	if _, err := modfile.Parse("go.mod", mod, nil); err != nil || !bytes.Contains(mod, []byte("replace github.com/ebpf-tracer/ebpf-tracer/sdk => /path/to/sdk")) {
		t.Errorf("%v: %s", err, mod)
	}
	if !bytes.Contains(read(t, dir, "README.md"), []byte("`go.mod` says how to name the SDK")) {
		t.Error("README.md does not lead there")
	}
}

func TestWhatCantBeMadeIsRefusedAndLeavesNothing(t *testing.T) {
	parent := t.TempDir()
	kept := filepath.Join(parent, "kept")
	if err := os.MkdirAll(filepath.Join(kept, "mine"), 0o755); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(parent, "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "go.mod"), []byte("module example.com/other\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	new := filepath.Join(parent, "new")
	for _, tt := range []struct {
		name string
		o    Options
		want string
	}{
		{"a kind that is none", Options{Kind: "exporter", Name: "a", Dir: new}, "there are discoverer, mesh and sampler"},
		{"a name with a capital", Options{Kind: config.Mesh, Name: "Acme", Dir: new}, "can't be a plugin's name"},
		{"a name that is a path", Options{Kind: config.Mesh, Name: "../acme"}, "can't be a plugin's name"},
		{"no name", Options{Kind: config.Mesh, Dir: new}, "can't be a plugin's name"},
		{"the word for all discoverers", Options{Kind: config.Discoverer, Name: "auto", Dir: new}, "choose another name"},
		{"a directory that is there", Options{Kind: config.Mesh, Name: "acme", Dir: kept}, "left as it is"},
		{"a directory in none", Options{Kind: config.Mesh, Name: "acme", Dir: filepath.Join(new, "deeper")}, "no such file"},
		{"an SDK that is none", Options{Kind: config.Mesh, Name: "acme", Dir: new, SDK: kept}, "is not the SDK"},
		{"an SDK that is another module", Options{Kind: config.Mesh, Name: "acme", Dir: new, SDK: other}, "is another module"},
		{"a path that HCL would read", Options{Kind: config.Mesh, Name: "acme", Dir: filepath.Join(parent, "${x}")}, "choose another place"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Make(tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if _, err := os.Lstat(new); err == nil {
				t.Error("something was made")
			}
		})
	}
	if left, err := os.ReadDir(kept); err != nil || len(left) != 1 {
		t.Errorf("of the directory that was there %v is left, %v", left, err)
	}
}
