package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/plugindoc"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
)

// Describe asks plugins what they say of themselves, or looks up what they said
// before; nothing else of them runs. name is NAME or KIND/NAME of one plugin, "" for
// all that are installed. They are looked for where Run would with o.ConfigFile, or,
// if that is "", beside the program. It needs no root.
func Describe(ctx context.Context, o Options, name string) (_ []plugindoc.Plugin, err error) {
	file := &config.File{}
	if o.ConfigFile != "" {
		var found config.Diagnostics
		if file, found = config.ReadFile(o.ConfigFile); found.HasErrors() {
			return nil, configError(o.ConfigFile, found)
		}
	}
	f, err := o.finder(ctx, file, o.storeDir())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	refs, err := choose(f.catalog, name)
	if err != nil {
		return nil, err
	}
	ask, err := o.asker()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ask.close()) }()
	var all []plugindoc.Plugin
	for _, ref := range refs {
		p, e := describe(ctx, ask, f, ref)
		if err = errors.Join(err, e); e == nil {
			all = append(all, p)
		}
	}
	return all, err
}

func describe(ctx context.Context, ask *asker, f *finder, ref config.PluginRef) (_ plugindoc.Plugin, err error) {
	e, err := f.find(ctx, ref)
	if err != nil {
		return plugindoc.Plugin{}, err
	}
	defer func() { err = errors.Join(err, e.Bundle.Close()) }()
	d, err := ask.Describe(ctx, e)
	if err != nil {
		return plugindoc.Plugin{}, err
	}
	return plugindoc.Plugin{
		Manifest: e.Manifest, File: e.File, Program: e.Program, Digest: e.Bundle.Digest,
		Version: d.Version, Doc: d.Doc, Schema: d.Schema,
	}, nil
}

// choose finds the plugins that a name means.
func choose(c *pluginhost.Catalog, name string) ([]config.PluginRef, error) {
	var chosen []config.PluginRef
	var known, meant []string
	for _, kind := range config.PluginKinds() {
		names, err := c.Names(kind)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			id := string(kind) + "/" + n
			known = append(known, id)
			if name == "" || name == n || name == id {
				meant = append(meant, id)
				chosen = append(chosen, config.PluginRef{Kind: kind, Name: n})
			}
		}
	}
	switch {
	case len(known) == 0:
		return nil, fmt.Errorf("there are no plugins in %s: build them (make build), or name their directory with --dir", strings.Join(c.Dirs(), " or "))
	case len(chosen) == 0:
		return nil, fmt.Errorf("there is no plugin %q in %s.%s There are %s", name, strings.Join(c.Dirs(), " or "), nearest(name, known), strings.Join(known, ", "))
	case name != "" && len(chosen) > 1:
		return nil, fmt.Errorf("%q are %d plugins: say which, %s", name, len(chosen), strings.Join(meant, " or "))
	}
	return chosen, nil
}

// nearest is a question that names the plugin that could be meant, or "".
func nearest(name string, known []string) string {
	distance := func(id string) int {
		_, base, _ := strings.Cut(id, "/")
		return min(levenshtein.Distance(name, id, nil), levenshtein.Distance(name, base, nil))
	}
	best := slices.MinFunc(known, func(a, b string) int { return cmp.Compare(distance(a), distance(b)) })
	if distance(best) > (len(name)+2)/3 {
		return ""
	}
	return fmt.Sprintf(" Did you mean %s?", best)
}
