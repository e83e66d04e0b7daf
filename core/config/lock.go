package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// LockName is the file beside a configuration that says which plugins may run.
const LockName = "ebpf-tracer.lock.hcl"

// Lock is what a lock file says: for every plugin and platform, the hashes of the
// files that may run. One goroutine changes it at a time.
type Lock struct {
	// Name is the lock file's, Exists whether there is one: without it every
	// plugin may run.
	Name   string
	Exists bool

	config  string // the configuration's file
	src     *source
	plugins []LockedPlugin // by kind and name
}

// LockedPlugin is one plugin of a lock file.
type LockedPlugin struct {
	Kind     PluginKind
	Name     string
	Version  string // as the plugin tells it
	Protocol int    // as its manifest says
	// Platforms are its files by GOOS_GOARCH.
	Platforms map[string]LockedFiles
}

// LockedFiles are the hashes of a plugin's files: SHA-256 in hexadecimal.
type LockedFiles struct {
	Program, Manifest string
	Files             map[string]string // by their names in the manifest

	at *node
}

// Equal tells whether the hashes, and the names, are the same.
func (l LockedFiles) Equal(o LockedFiles) bool {
	return l.Program == o.Program && l.Manifest == o.Manifest && maps.Equal(l.Files, o.Files)
}

// LockError says that a plugin is not what was locked.
type LockError struct {
	Plugin string // as in PluginRef.String
	Lock   string // the file
	Config string // the configuration's
	// Reasons are what differs, one sentence each.
	Reasons []string

	missing bool // it is not in the lock file, or not for this platform
}

func (e *LockError) Error() string {
	return fmt.Sprintf("%s is not what %s allows: %s", e.Plugin, e.Lock, strings.Join(e.Reasons, "; "))
}

// Short says it without hashes.
func (e *LockError) Short() string {
	if e.missing {
		return "it is not in the lock file " + e.Lock
	}
	return "it is not what the lock file " + e.Lock + " allows"
}

// advice is what to do about it.
func (e *LockError) advice() string {
	return fmt.Sprintf("If you know why, and trust what is there now, run: ebpf-tracer plugin lock --config %s. If not, install the plugin again from where you trust it.", e.Config)
}

// ReadLock reads the lock file beside a configuration's file. The lock is never
// nil, but holds only what had no errors.
func ReadLock(configFile string) (*Lock, Diagnostics) {
	name := filepath.Join(filepath.Dir(configFile), LockName)
	src, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &Lock{Name: name, config: configFile}, nil
	}
	if err != nil {
		return &Lock{Name: name, config: configFile, Exists: true}, Diagnostics{{
			Severity: Error, Summary: "No lock file",
			Detail: fmt.Sprintf("The lock file is there and can't be read: %v.", err),
		}}
	}
	l, diags := ParseLock(name, src)
	l.config = configFile
	return l, diags
}

// lockSchema is what the block of a platform holds.
func lockSchema() schema.Block {
	const hash = `sha256:[0-9a-f]{64}`
	return schema.Block{Attributes: []schema.Attribute{
		{Name: "program", Type: schema.String, Required: true, Pattern: hash, Doc: "the hash of the program"},
		{Name: "manifest", Type: schema.String, Required: true, Pattern: hash, Doc: "the hash of the manifest"},
		{Name: "files", Type: schema.String, Shape: schema.Map, Pattern: hash, Default: map[string]string{}, Doc: "the hashes of the files that the manifest names"},
	}}
}

// ParseLock reads the text of a lock file; filename is used in findings only.
func ParseLock(filename string, src []byte) (*Lock, Diagnostics) {
	s := &source{name: filename}
	l := &Lock{Name: filename, Exists: true, src: s, config: "FILE"}
	if tooMuch := bounded(s, src); tooMuch != nil {
		s.file = &hcl.File{Body: hcl.EmptyBody(), Bytes: src}
		return l, s.diagnostics(hcl.Diagnostics{tooMuch})
	}
	var diags hcl.Diagnostics
	if s.file, diags = hclsyntax.ParseConfig(src, filename, hcl.InitialPos); diags.HasErrors() {
		return l, s.diagnostics(diags)
	}
	content, diags := s.file.Body.Content(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{
		Type: hostBlock, LabelNames: []string{"kind", "name"},
	}}})
	r := lockReader{dec: decoder{env: nowhere("a lock file"), src: s, diags: diags}, first: map[string]hcl.Range{}}
	for _, b := range content.Blocks {
		if p, ok := r.plugin(b); ok {
			l.plugins = append(l.plugins, p)
		}
	}
	l.sort()
	return l, s.diagnostics(r.dec.diags)
}

// nowhere is the environment of a file that says the same on every host.
func nowhere(what string) *environment {
	return &environment{
		lookup:   func(string) (string, bool) { return "", false },
		hostname: func() (string, error) { return "", errors.New(what + " is the same on every host") },
	}
}

type lockReader struct {
	dec   decoder
	first map[string]hcl.Range
}

func (r *lockReader) plugin(b *hcl.Block) (LockedPlugin, bool) {
	p := LockedPlugin{Kind: PluginKind(b.Labels[0]), Name: b.Labels[1], Platforms: map[string]LockedFiles{}}
	title := fmt.Sprintf("%s %q %q", hostBlock, p.Kind, p.Name)
	if !p.Kind.valid() {
		r.dec.errorf(b.LabelRanges[0], "Unknown kind", "There is no kind of plugin %q.", p.Kind)
		return p, false
	}
	if !r.once(title, b.DefRange) {
		return p, false
	}
	content, rest, diags := b.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{
		Type: "platform", LabelNames: []string{"name"},
	}}})
	r.dec.diags = append(r.dec.diags, diags...)
	var head struct {
		Version  string
		Protocol int
	}
	s := schema.Block{Attributes: []schema.Attribute{
		{Name: "version", Type: schema.String, Required: true, Doc: "the plugin's version"},
		{Name: "protocol", Type: schema.Integer, Required: true, Min: schema.Bound(1), Doc: "the protocol that it speaks"},
	}}
	_, ok := r.body(rest, &s, b.DefRange, title, &head)
	p.Version, p.Protocol = head.Version, head.Protocol
	for _, b := range content.Blocks {
		title := fmt.Sprintf("platform %q of %s", b.Labels[0], title)
		if !r.once(title, b.DefRange) {
			ok = false
			continue
		}
		s := lockSchema()
		var f LockedFiles
		at, whole := r.body(b.Body, &s, b.DefRange, title, &f)
		f.at = at
		f.eachHash(func(hash *string) { *hash = strings.TrimPrefix(*hash, "sha256:") })
		p.Platforms[b.Labels[0]] = f
		ok = ok && whole
	}
	return p, ok
}

// body decodes a body into to, and tells whether it was right.
func (r *lockReader) body(body hcl.Body, s *schema.Block, where hcl.Range, title string, to any) (*node, bool) {
	d := decoder{env: r.dec.env, src: r.dec.src}
	values, at := d.body(body, s, where, title)
	if !d.diags.HasErrors() {
		raw, err := json.Marshal(values)
		if err == nil {
			err = json.Unmarshal(raw, to)
		}
		if err != nil {
			d.errorf(where, "Bug in this program", "%s can't be taken over: %v. Please report it.", title, err)
		}
	}
	r.dec.diags = append(r.dec.diags, d.diags...)
	return at, !d.diags.HasErrors()
}

func (r *lockReader) once(title string, rng hcl.Range) bool {
	if first, ok := r.first[title]; ok {
		r.dec.errorf(rng, "Duplicate block", "%s is there already at %s. Keep one of the two.", title, rangeOf(first))
		return false
	}
	r.first[title] = rng
	return true
}

// eachHash changes every hash.
func (l *LockedFiles) eachHash(change func(*string)) {
	change(&l.Program)
	change(&l.Manifest)
	for name, hash := range l.Files {
		change(&hash)
		l.Files[name] = hash
	}
}

func (l *Lock) sort() {
	slices.SortFunc(l.plugins, func(a, b LockedPlugin) int {
		if c := strings.Compare(string(a.Kind), string(b.Kind)); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// Find returns what is locked of a plugin.
func (l *Lock) Find(kind PluginKind, name string) (LockedPlugin, bool) {
	i := slices.IndexFunc(l.plugins, func(p LockedPlugin) bool { return p.Kind == kind && p.Name == name })
	if i < 0 {
		return LockedPlugin{}, false
	}
	return l.plugins[i], true
}

// Check holds what was found of a plugin, on a platform, against the lock. The error
// is a *LockError. Without a lock file everything is right.
func (l *Lock) Check(ref PluginRef, platform string, found LockedFiles) error {
	if !l.Exists {
		return nil
	}
	refused := &LockError{Plugin: ref.String(), Lock: l.Name, Config: l.config}
	p, ok := l.Find(ref.Kind, ref.Name)
	locked, here := p.Platforms[platform]
	refused.missing = !here
	switch {
	case !ok:
		refused.Reasons = []string{"it is not in the lock file; " + found.summary()}
	case !here:
		refused.Reasons = []string{fmt.Sprintf("the lock file has it for %s, and this is %s; %s", strings.Join(slices.Sorted(maps.Keys(p.Platforms)), ", "), platform, found.summary())}
	default:
		refused.Reasons = locked.differences(found)
	}
	if len(refused.Reasons) == 0 {
		return nil
	}
	return refused
}

// summary tells the hash of a program that is not locked.
func (l LockedFiles) summary() string { return "its program is sha256:" + l.Program }

// differences are what found has otherwise.
func (l LockedFiles) differences(found LockedFiles) []string {
	var all []string
	differs := func(what, name, locked, found string) {
		at := l.at.placeOf(name)
		switch {
		case locked == found:
		case found == "":
			all = append(all, fmt.Sprintf("%s is locked%s and is not among its files any more", what, at))
		case locked == "":
			all = append(all, fmt.Sprintf("%s, sha256:%s, is not locked", what, found))
		default:
			all = append(all, fmt.Sprintf("%s is locked%s as\n  sha256:%s\nand is now\n  sha256:%s", what, at, locked, found))
		}
	}
	differs("its program", "program", l.Program, found.Program)
	differs("its manifest", "manifest", l.Manifest, found.Manifest)
	names := map[string]bool{}
	for _, files := range []map[string]string{l.Files, found.Files} {
		for n := range files {
			names[n] = true
		}
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		differs(fmt.Sprintf("its file %q", n), "files", l.Files[n], found.Files[n])
	}
	return all
}

// placeOf says where a hash was read; "" if it was not.
func (n *node) placeOf(name string) string {
	if n == nil || n.members[name] == nil {
		return ""
	}
	return " (" + rangeOf(n.members[name].rng).String() + ")"
}

// Set locks a plugin as it was found on a platform. What is locked of it for other
// platforms stays.
func (l *Lock) Set(kind PluginKind, name, version string, protocol int, platform string, found LockedFiles) {
	p, ok := l.Find(kind, name)
	if !ok {
		l.plugins = append(l.plugins, LockedPlugin{Kind: kind, Name: name})
		l.sort()
	}
	p = LockedPlugin{Kind: kind, Name: name, Version: version, Protocol: protocol, Platforms: maps.Clone(p.Platforms)}
	if p.Platforms == nil {
		p.Platforms = map[string]LockedFiles{}
	}
	p.Platforms[platform] = found
	for i := range l.plugins {
		if l.plugins[i].Kind == kind && l.plugins[i].Name == name {
			l.plugins[i] = p
		}
	}
}

// Write writes the lock file in one piece: whoever reads it meanwhile gets the old
// one or the new one.
func (l *Lock) Write() error {
	f, err := os.CreateTemp(filepath.Dir(l.Name), LockName+".")
	if err != nil {
		return fmt.Errorf("write the lock file: %w", err)
	}
	_, err = f.Write(l.Format())
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), l.Name)
	}
	if err != nil {
		return fmt.Errorf("write the lock file: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// lockHeader begins every lock file.
const lockHeader = `# Which plugins may run, by the hashes of their files. Written by
# "ebpf-tracer plugin lock"; keep it together with the configuration.
`

// Format writes the lock file: the same lock is the same text.
func (l *Lock) Format() []byte {
	f := hclwrite.NewEmptyFile()
	for _, p := range l.plugins {
		f.Body().AppendNewline()
		b := f.Body().AppendNewBlock(hostBlock, []string{string(p.Kind), p.Name}).Body()
		b.SetAttributeValue("version", cty.StringVal(p.Version))
		b.SetAttributeValue("protocol", cty.NumberIntVal(int64(p.Protocol)))
		for _, platform := range slices.Sorted(maps.Keys(p.Platforms)) {
			b.AppendNewline()
			files := p.Platforms[platform]
			b := b.AppendNewBlock("platform", []string{platform}).Body()
			b.SetAttributeValue("program", cty.StringVal("sha256:"+files.Program))
			b.SetAttributeValue("manifest", cty.StringVal("sha256:"+files.Manifest))
			if len(files.Files) > 0 {
				all := map[string]cty.Value{}
				for n, hash := range files.Files {
					all[n] = cty.StringVal("sha256:" + hash)
				}
				b.SetAttributeValue("files", cty.MapVal(all))
			}
		}
	}
	return append([]byte(lockHeader), hclwrite.Format(f.Bytes())...)
}
