package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// list gives the packages of all modules, those of the examples included, for one
// architecture.
func list(t *testing.T, arch string) []Package {
	t.Helper()
	var all []Package
	examples, err := filepath.Glob(root + "/examples/plugins/*/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	modules := []string{root, root + "/sdk"}
	for _, e := range examples {
		modules = append(modules, filepath.Dir(e))
	}
	for _, module := range modules {
		c := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "./...")
		c.Dir = module
		c.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch)
		var stderr bytes.Buffer
		c.Stderr = &stderr
		out, err := c.Output()
		if err != nil {
			t.Fatalf("list the packages of %s: %v\n%s", module, err, &stderr)
		}
		for d := json.NewDecoder(bytes.NewReader(out)); ; {
			var p struct {
				ImportPath string
				Imports    []string
			}
			err := d.Decode(&p)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("read go list: %v", err)
			}
			all = append(all, Package{p.ImportPath, p.Imports})
		}
	}
	return all
}

func TestNoPackageBreaksAnImportRule(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		packages := list(t, arch)
		// A listing that lacks the kernel, the SDK or the plugins proves nothing.
		for _, dir := range []string{"core/kernel", "core/pluginhost", "sdk/plugin", "plugins/discoverer/docker", "bpf"} {
			if !slices.ContainsFunc(packages, func(p Package) bool { return within(p.Path, dir) }) {
				t.Errorf("%s: %s is not among the packages", arch, dir)
			}
		}
		if !slices.ContainsFunc(packages, func(p Package) bool { return !ours(p.Path) }) {
			t.Errorf("%s: no third party's plugin is among the packages", arch)
		}
		for _, v := range Violations(packages) {
			t.Errorf("%s: %s", arch, v)
		}
	}
}

// Every rule is broken here once at least, so that each is known to be able to
// fail, and kept by its nearest neighbours.
func TestEachImportRuleCanFail(t *testing.T) {
	pkg := func(path string, imports ...string) Package {
		for i, p := range imports {
			if !strings.Contains(p, ".") {
				imports[i] = Module + p
			}
		}
		return Package{Module + path, imports}
	}
	for _, test := range []struct {
		name     string
		pkg      Package
		sentence string // "": no rule is broken
	}{
		{"the SDK imports core", pkg("sdk/plugin", "core/event"), "the SDK imports nothing of ours but itself"},
		{"the SDK imports a plugin", pkg("sdk/plugin", "plugins/mesh/generic"), "the SDK imports nothing of ours but itself"},
		{"the SDK imports bpf", pkg("sdk/client", "bpf"), "the SDK imports nothing of ours but itself"},
		{"the SDK imports itself", pkg("sdk/plugin", "sdk/diag", "sdk/proto/v1"), ""},
		{"a plugin imports core", pkg("plugins/discoverer/docker", "core/inventory"), "a plugin imports, of ours, only the SDK and its own packages"},
		{"a plugin imports bpf", pkg("plugins/discoverer/docker", "bpf"), "a plugin imports, of ours, only the SDK and its own packages"},
		{"a plugin imports another", pkg("plugins/mesh/istio", "plugins/mesh/generic"), "a plugin imports, of ours, only the SDK and its own packages"},
		{"a plugin imports one whose name begins alike", pkg("plugins/mesh/generic", "plugins/mesh/generic2"), "a plugin imports, of ours, only the SDK and its own packages"},
		{"a plugin imports the SDK, its own packages and its client", pkg("plugins/mesh/generic", "sdk/plugin", "plugins/mesh/generic/match", "github.com/moby/moby/client"), ""},
		{"a third party's plugin imports core", Package{"example.com/plugin", []string{Module + "core/event"}}, "a third party's plugin imports, of ours, only the SDK"},
		{"a third party's plugin imports a plugin of ours", Package{"example.com/plugin", []string{Module + "plugins/mesh/generic"}}, "a third party's plugin imports, of ours, only the SDK"},
		{"a third party's plugin imports the SDK and what it likes", Package{"example.com/plugin", []string{Module + "sdk/plugin", "example.com/client"}}, ""},
		{"core imports a plugin", pkg("core/daemon", "plugins/sampler/threshold"), "core never imports a plugin"},
		{"core imports a test's package", pkg("core/daemon", "test/env"), "core imports nothing of the tests or the examples"},
		{"core imports an example", pkg("core/config", "examples/plugin"), "core imports nothing of the tests or the examples"},
		{"an exporter wires", pkg("core/exporter", "core/pipeline", "core/inventory", "core/kernel"), "only core/daemon and core/cmd import more than two stages"},
		{"a newcomer in core wires", pkg("core/audit", "core/pipeline", "core/load", "core/api"), "only core/daemon and core/cmd import more than two stages"},
		{"an exporter imports two stages", pkg("core/exporter", "core/pipeline", "core/inventory", "core/event"), ""},
		{"the daemon wires", pkg("core/daemon", "core/pipeline", "core/load", "core/api", "core/kernel", "core/exporter"), ""},
		{"a stage imports the daemon", pkg("core/api", "core/daemon"), "only core/daemon and core/cmd import core/daemon"},
		{"the command imports the daemon", pkg("core/cmd/ebpf-tracer", "core/daemon"), ""},
		{"an event knows the inventory", pkg("core/event", "core/inventory"), "core/event is a leaf"},
		{"the pipeline imports cilium/ebpf", pkg("core/pipeline", "github.com/cilium/ebpf/ringbuf"), "only core/kernel imports cilium/ebpf"},
		{"the daemon imports cilium/ebpf", pkg("core/daemon", "github.com/cilium/ebpf"), "only core/kernel imports cilium/ebpf"},
		{"a plugin imports cilium/ebpf", pkg("plugins/mesh/generic", "github.com/cilium/ebpf"), "only core/kernel imports cilium/ebpf"},
		{"the kernel imports cilium/ebpf and bpf", pkg("core/kernel", "github.com/cilium/ebpf/link", "bpf"), ""},
		{"the generated bindings import cilium/ebpf", pkg("bpf", "github.com/cilium/ebpf"), ""},
		{"the pipeline imports bpf", pkg("core/pipeline", "bpf"), "only core/kernel imports package bpf"},
		{"the daemon imports go-plugin", pkg("core/daemon", "github.com/hashicorp/go-plugin"), "only sdk/plugin and core/pluginhost import go-plugin"},
		{"a plugin imports go-plugin", pkg("plugins/mesh/generic", "github.com/hashicorp/go-plugin/runner"), "only sdk/plugin and core/pluginhost import go-plugin"},
		{"the daemon imports go-hclog", pkg("core/daemon", "github.com/hashicorp/go-hclog"), "only sdk/plugin and core/pluginhost import go-hclog"},
		{"the plugin host imports both", pkg("core/pluginhost", "github.com/hashicorp/go-plugin", "github.com/hashicorp/go-hclog"), ""},
		{"the SDK's plugin package imports both", pkg("sdk/plugin", "github.com/hashicorp/go-plugin", "github.com/hashicorp/go-hclog"), ""},
		{"the plugin host imports HCL", pkg("core/pluginhost", "github.com/hashicorp/hcl/v2/gohcl"), "only core/config and sdk/schema import HCL or cty"},
		{"the SDK's client imports cty", pkg("sdk/client", "github.com/zclconf/go-cty/cty"), "only core/config and sdk/schema import HCL or cty"},
		{"the configuration imports both", pkg("core/config", "github.com/hashicorp/hcl/v2", "github.com/zclconf/go-cty/cty"), ""},
		{"a test's package starts the daemon", pkg("test/env", "core/daemon", "core/kernel", "core/api", "core/pipeline", "github.com/cilium/ebpf"), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := strings.Join(Violations([]Package{test.pkg}), "\n")
			if test.sentence == "" && got != "" {
				t.Errorf("reported without reason: %s", got)
			}
			if !strings.Contains(got, test.sentence) {
				t.Errorf("reported %q, not %q", got, test.sentence)
			}
		})
	}
	t.Run("and no rule was left out", func(t *testing.T) {
		source, err := os.ReadFile("arch_test.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range Rules() {
			if !bytes.Contains(source, []byte(`"`+r.Sentence+`"`)) {
				t.Errorf("no example breaks the rule %q", r.Sentence)
			}
		}
	})
}

// sideEffects finds what a file does by merely being linked: functions named init,
// and imports that are there for their side effects.
func sideEffects(name string, source []byte) ([]string, error) {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, name, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range f.Decls {
		if d, ok := d.(*ast.FuncDecl); ok && d.Recv == nil && d.Name.Name == "init" {
			out = append(out, files.Position(d.Pos()).String()+": func init")
		}
	}
	for _, i := range f.Imports {
		if i.Name != nil && i.Name.Name == "_" && i.Path.Value != `"embed"` {
			out = append(out, files.Position(i.Pos()).String()+": import of "+i.Path.Value+" for its side effects")
		}
	}
	return out, nil
}

func TestNothingInCoreHappensByBeingLinked(t *testing.T) {
	var files int
	err := filepath.WalkDir(root+"/core", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "testdata" {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found, err := sideEffects(path, source)
		for _, f := range found {
			t.Error(f)
		}
		files++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Error("no file of core was read")
	}
	found, err := sideEffects("wrong.go", []byte("package p\nimport _ \"net/http/pprof\"\nfunc init() {}\n"))
	if err != nil || len(found) != 2 {
		t.Errorf("a file with two side effects is reported with %v, %v", found, err)
	}
}

func TestTheLinterIsToldEachRuleThatItCanHold(t *testing.T) {
	config, err := os.ReadFile(root + "/.golangci.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range Rules() {
		if strings.Contains(r.Sentence, "more than two") {
			continue // depguard can't count
		}
		if !bytes.Contains(config, []byte("desc: "+r.Sentence+"\n")) {
			t.Errorf(".golangci.yml denies nothing because %q", r.Sentence)
		}
	}
}

func TestTheMainFileIsShort(t *testing.T) {
	const most = 30
	b, err := os.ReadFile(root + "/core/cmd/ebpf-tracer/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte("\n")); n > most {
		t.Errorf("core/cmd/ebpf-tracer/main.go has %d lines, more than %d: what it does belongs elsewhere", n, most)
	}
}
