package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"golang.org/x/mod/modfile"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/contract"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

//go:embed template
var templates embed.FS

// sdkModule is the path of the SDK's module.
const sdkModule = "github.com/ebpf-tracer/ebpf-tracer/sdk"

// goVersion is the least version of Go for a module whose SDK is not known yet.
const goVersion = "1.26.0"

// Options of Make.
type Options struct {
	Kind config.PluginKind
	Name string
	// SDK is the directory of the SDK; "": the author names it later.
	SDK string
	// Dir is the directory to make; "": Name, in the working directory.
	Dir string
}

// Scaffold is what was made.
type Scaffold struct {
	Dir    string   // absolute
	Files  []string // relative to Dir, sorted
	Binary string   // to be built, relative to Dir
}

// values are what templates are filled with.
type values struct {
	Kind, Name string
	A, Noun    string // an article and what the kind is called
	Code       string // base name of the file with the code
	Protocol   int
	Root       string // absolute path of the module
	SDKModule  string
	Go         string
	Replace    string   // where the SDK is; "": not known
	Requires   []string // modules and versions
}

// Make makes a plugin's module. The directory must not exist; when anything fails,
// nothing is left of it.
func Make(o Options) (Scaffold, error) {
	v, sums, err := o.values()
	if err != nil {
		return Scaffold{}, err
	}
	files, err := render(v)
	if err != nil {
		return Scaffold{}, err
	}
	if sums != nil {
		files["go.sum"] = sums
	}
	s := Scaffold{Dir: v.Root, Binary: path.Join("plugins", v.Kind, v.Name)}
	for name := range files {
		s.Files = append(s.Files, name)
	}
	slices.Sort(s.Files)
	err = os.Mkdir(s.Dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return Scaffold{}, fmt.Errorf("%s is there already, and was left as it is: choose another name, or another place with --dir", s.Dir)
	}
	if err != nil {
		return Scaffold{}, fmt.Errorf("make the plugin's directory: %w", err)
	}
	if err := write(s.Dir, files); err != nil {
		return Scaffold{}, errors.Join(fmt.Errorf("make the plugin: %w", err), os.RemoveAll(s.Dir))
	}
	return s, nil
}

// values checks the options.
func (o Options) values() (values, []byte, error) {
	v := values{Kind: string(o.Kind), Name: o.Name, A: "a", Protocol: wire.ProtocolVersion, SDKModule: sdkModule, Go: goVersion}
	switch o.Kind {
	case config.Discoverer:
		v.Noun, v.Code = "discoverer", "discoverer"
	case config.Mesh:
		v.Noun, v.Code = "mesh detector", "detector"
	case config.Sampler:
		v.Noun, v.Code = "sampler", "sampler"
	default:
		return v, nil, fmt.Errorf("there are no plugins of kind %q: there are discoverer, mesh and sampler", o.Kind)
	}
	if !contract.IsName(o.Name) {
		return v, nil, fmt.Errorf("%q can't be a plugin's name: names have 1 to 63 small letters, digits and hyphens, and no hyphen at either end", o.Name)
	}
	if o.Kind == config.Discoverer && o.Name == "auto" {
		return v, nil, errors.New(`"auto" is the configuration's word for all discoverers: choose another name`)
	}
	dir := o.Dir
	if dir == "" {
		dir = o.Name
	}
	var err error
	if v.Root, err = filepath.Abs(dir); err != nil {
		return v, nil, fmt.Errorf("find the plugin's directory: %w", err)
	}
	if strings.ContainsAny(v.Root, "\"\\\n`$%") {
		return v, nil, fmt.Errorf("the path %q can't be written into a configuration as it is: choose another place with --dir", v.Root)
	}
	if o.SDK == "" {
		return v, nil, nil
	}
	sums, err := v.sdk(o.SDK)
	return v, sums, err
}

// sdk reads what the SDK's module requires, and its checksums.
func (v *values) sdk(dir string) ([]byte, error) {
	name := filepath.Join(dir, "go.mod")
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%s is not the SDK: %w; name the directory sdk of a release or a checkout", dir, err)
	}
	mod, err := modfile.Parse(name, raw, nil)
	if err != nil {
		return nil, fmt.Errorf("read the SDK's go.mod: %w", err)
	}
	if mod.Module == nil || mod.Module.Mod.Path != sdkModule {
		return nil, fmt.Errorf("%s is another module than %s: name the directory sdk of a release or a checkout", dir, sdkModule)
	}
	if mod.Go != nil {
		v.Go = mod.Go.Version
	}
	for _, r := range mod.Require {
		v.Requires = append(v.Requires, r.Mod.Path+" "+r.Mod.Version)
	}
	slices.Sort(v.Requires)
	sums, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return nil, fmt.Errorf("read the SDK's go.sum: %w", err)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the SDK: %w", err)
	}
	v.Replace = abs
	if !filepath.IsAbs(dir) { // what moves together stays together
		if v.Replace, err = filepath.Rel(v.Root, abs); err != nil {
			return nil, fmt.Errorf("find the SDK: %w", err)
		}
		if !strings.HasPrefix(v.Replace, ".") {
			v.Replace = "./" + v.Replace
		}
	}
	v.Replace = modfile.AutoQuote(v.Replace)
	return sums, nil
}

// render fills the templates: contents by path.
func render(v values) (map[string][]byte, error) {
	names := map[string]string{ // template to file
		"common/main.go.tmpl":                   "main.go",
		"common/gitignore.tmpl":                 ".gitignore",
		"common/Makefile.tmpl":                  "Makefile",
		"common/go.mod.tmpl":                    "go.mod",
		"common/README.md.tmpl":                 "README.md",
		"common/manifest.hcl.tmpl":              path.Join("plugins", v.Kind, v.Name+".plugin.hcl"),
		v.Kind + "/" + v.Code + ".go.tmpl":      v.Code + ".go",
		v.Kind + "/" + v.Code + "_test.go.tmpl": v.Code + "_test.go",
		v.Kind + "/config.hcl.tmpl":             "config.hcl",
	}
	if v.Kind == string(config.Discoverer) {
		names[v.Kind+"/workload.tmpl"] = "workloads/web"
	}
	files := map[string][]byte{}
	for from, to := range names {
		t, err := template.New(path.Base(from)).Option("missingkey=error").ParseFS(templates, "template/"+from)
		if err != nil {
			return nil, fmt.Errorf("read the template of %s: %w", to, err)
		}
		var b bytes.Buffer
		if err := t.Execute(&b, v); err != nil {
			return nil, fmt.Errorf("fill the template of %s: %w", to, err)
		}
		text := b.Bytes()
		if strings.HasSuffix(to, ".go") {
			if text, err = format.Source(text); err != nil {
				return nil, fmt.Errorf("format %s: %w", to, err)
			}
		}
		files[to] = text
	}
	return files, nil
}

// write writes files into dir, which was just made.
func write(dir string, files map[string][]byte) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for name, text := range files {
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(name, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
