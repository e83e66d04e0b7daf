package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/store"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/trust"
)

// manifestSuffix ends the name of every manifest.
const manifestSuffix = ".plugin.hcl"

// maxManifest is the largest manifest that is read, in bytes.
const maxManifest = 64 << 10

// id is what a plugin may be called.
var id = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Entry is a plugin that can be run.
type Entry struct {
	Manifest config.Manifest
	// File is the path of the manifest, Dir its directory, in which the plugin
	// runs.
	File, Dir string
	// Program is the absolute path of what is run, Args what follows it.
	Program string
	Args    []string
	// Bundle is what is run in their place, once Take has hashed it. Who took it
	// closes it when no process of the plugin is to be started any more.
	Bundle *store.Bundle

	text []byte // the manifest that was read
}

// Take hashes the plugin's files and keeps them in s: from then on every process of
// the plugin runs what was hashed, whatever becomes of the files.
func (e *Entry) Take(ctx context.Context, s *store.Store) error {
	f := store.Files{
		Dir: e.Dir, Manifest: filepath.Base(e.File), ManifestText: e.text,
		Program: e.Manifest.Command[0], Others: e.Manifest.Files,
	}
	if filepath.IsAbs(f.Program) {
		f.Program = e.Program // where the distribution's links lead
	}
	b, err := s.Take(ctx, f)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("a file that its manifest names is not there: %w", err)
	}
	if err != nil {
		return fmt.Errorf("plugin %s: %w", e, err)
	}
	e.Bundle = b
	return nil
}

// String is kind/name.
func (e Entry) String() string { return string(e.Manifest.Kind) + "/" + e.Manifest.Name }

// Catalog finds plugins in directories laid out as KIND/NAME.plugin.hcl. It reads
// the directories anew for each call and is safe for concurrent use.
type Catalog struct {
	dirs  []string
	trust trust.Owners
}

// NewCatalog searches dirs in order: the first that has a plugin's manifest
// decides. A directory that does not exist is skipped.
func NewCatalog(dirs []string) (*Catalog, error) {
	t, err := trust.Daemon()
	if err != nil {
		return nil, err
	}
	c := &Catalog{trust: t}
	for _, d := range dirs {
		abs, err := filepath.Abs(d)
		if err != nil {
			return nil, fmt.Errorf("find plugin directory %s: %w", d, err)
		}
		c.dirs = append(c.dirs, abs)
	}
	return c, nil
}

// Dirs are the directories searched.
func (c *Catalog) Dirs() []string { return slices.Clone(c.dirs) }

// Find returns a plugin. The error is a *config.NotFoundError when no directory
// has its manifest, a *config.MissingBinaryError when there is no program, or
// says what is wrong with the manifest or with who may write to it.
func (c *Catalog) Find(kind config.PluginKind, name string) (Entry, error) {
	if wireKind(kind) == 0 || !id.MatchString(name) {
		return Entry{}, fmt.Errorf("find plugin %s %q: a name has 1 to 63 of a-z, 0-9 and -", kind, name)
	}
	for _, dir := range c.dirs {
		e, err := c.read(dir, kind, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return e, err
	}
	known, err := c.Names(kind)
	if err != nil {
		return Entry{}, err
	}
	return Entry{}, &config.NotFoundError{Known: known, Dirs: c.Dirs()}
}

// Names are the plugins of a kind that have a manifest, sorted.
func (c *Catalog) Names(kind config.PluginKind) ([]string, error) {
	var names []string
	for _, dir := range c.dirs {
		files, err := os.ReadDir(filepath.Join(dir, string(kind)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list plugins: %w", err)
		}
		for _, f := range files {
			if n, ok := strings.CutSuffix(f.Name(), manifestSuffix); ok && id.MatchString(n) {
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// read reads one manifest. fs.ErrNotExist says that it is not in dir.
func (c *Catalog) read(dir string, kind config.PluginKind, name string) (Entry, error) {
	top, err := os.OpenRoot(dir)
	if err != nil {
		return Entry{}, fmt.Errorf("open plugin directory: %w", err)
	}
	defer top.Close()
	sub := filepath.Join(dir, string(kind))
	if err := errors.Join(c.trust.Entry(top, ".", dir), c.trust.Entry(top, string(kind), sub)); err != nil {
		return Entry{}, err
	}
	root, err := top.OpenRoot(string(kind))
	if err != nil {
		return Entry{}, fmt.Errorf("open plugin directory: %w", err)
	}
	defer root.Close()

	e, err := c.manifest(root, sub, name)
	if err != nil {
		return Entry{}, err
	}
	if m := e.Manifest; m.Kind != kind || m.Name != name {
		return Entry{}, fmt.Errorf("%s: it says plugin %q %q, but by its place it is %q %q", e.File, m.Kind, m.Name, kind, name)
	}
	return e, c.program(root, &e)
}

// At returns the plugin whose manifest or program is file, wherever it lies: a
// program has its manifest beside it, under its own name. The daemon itself finds
// only those that lie in a directory of their kind.
func (c *Catalog) At(file string) (Entry, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return Entry{}, fmt.Errorf("find the plugin: %w", err)
	}
	dir := filepath.Dir(file)
	name, isManifest := strings.CutSuffix(filepath.Base(file), manifestSuffix)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Entry{}, fmt.Errorf("open the plugin's directory: %w", err)
	}
	defer root.Close()
	if err := c.trust.Entry(root, ".", dir); err != nil {
		return Entry{}, err
	}
	e, err := c.manifest(root, dir, name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !isManifest:
		return Entry{}, fmt.Errorf("%s has no manifest beside it: it is called %s%s and says what the plugin is and needs", file, name, manifestSuffix)
	case err != nil:
		return Entry{}, err
	case e.Manifest.Name != name:
		return Entry{}, fmt.Errorf("%s: it says plugin %q %q, so it must be called %s%s", e.File, e.Manifest.Kind, e.Manifest.Name, e.Manifest.Name, manifestSuffix)
	case wireKind(e.Manifest.Kind) == 0 || !id.MatchString(name):
		return Entry{}, fmt.Errorf("%s: plugin %q %q: a plugin is a discoverer, mesh or sampler, and its name has 1 to 63 of a-z, 0-9 and -", e.File, e.Manifest.Kind, name)
	}
	return e, c.program(root, &e)
}

// manifest reads one manifest of the directory dir, which is root.
func (c *Catalog) manifest(root *os.Root, dir, name string) (Entry, error) {
	e := Entry{Dir: dir, File: filepath.Join(dir, name+manifestSuffix)}
	base := name + manifestSuffix
	if err := c.trust.Entry(root, base, e.File); err != nil {
		return Entry{}, err
	}
	if st, err := root.Stat(base); err != nil || st.Size() > maxManifest || !st.Mode().IsRegular() {
		return Entry{}, errors.Join(err, fmt.Errorf("%s: a manifest is a file of at most %d bytes", e.File, maxManifest))
	}
	src, err := root.ReadFile(base)
	if err != nil {
		return Entry{}, fmt.Errorf("read manifest: %w", err)
	}
	if e.Manifest, err = config.ParseManifest(e.File, src); err != nil {
		return Entry{}, err
	}
	e.text = src
	m := e.Manifest
	if err := checkProtocol(m.Protocol); err != nil {
		return Entry{}, fmt.Errorf("%s: %w", e.File, err)
	}
	if err := Rights(m.Needs, nil, "", "").Check(); err != nil {
		return Entry{}, fmt.Errorf("%s: %w", e.File, err)
	}
	e.Program, e.Args = m.Command[0], m.Command[1:]
	return e, nil
}

// program checks what an entry runs, and makes its path absolute.
func (c *Catalog) program(root *os.Root, e *Entry) error {
	if filepath.IsAbs(e.Program) {
		// An interpreter: it may be a symlink of the distribution's.
		real, err := filepath.EvalSymlinks(e.Program)
		if errors.Is(err, fs.ErrNotExist) {
			return &config.MissingBinaryError{Manifest: e.File, Binary: e.Program}
		}
		if err != nil {
			return fmt.Errorf("%s: find the program: %w", e.File, err)
		}
		st, err := os.Lstat(real)
		if err != nil {
			return fmt.Errorf("%s: find the program: %w", e.File, err)
		}
		e.Program = real
		return errors.Join(c.trust.File(st, real), runnable(st, real))
	}
	rel := filepath.Clean(e.Program)
	e.Program = filepath.Join(e.Dir, rel)
	if !filepath.IsLocal(rel) {
		return fmt.Errorf("%s: its program %s is outside of its directory", e.File, rel)
	}
	// Every directory on the way counts, and the file itself.
	parts := strings.Split(rel, string(filepath.Separator))
	for i := range parts {
		at := filepath.Join(parts[:i+1]...)
		err := c.trust.Entry(root, at, filepath.Join(e.Dir, at))
		if errors.Is(err, fs.ErrNotExist) {
			return &config.MissingBinaryError{Manifest: e.File, Binary: e.Program}
		}
		if err != nil {
			return err
		}
	}
	st, err := root.Stat(rel)
	if err != nil {
		return fmt.Errorf("%s: find the program: %w", e.File, err)
	}
	return runnable(st, e.Program)
}

func runnable(st fs.FileInfo, path string) error {
	if !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is no program: it must be a file with permission to execute", path)
	}
	return nil
}
