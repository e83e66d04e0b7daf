package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agext/levenshtein"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/plugindoc"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/schemas"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/store"
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
	catalog, err := o.catalog(file)
	if err != nil {
		return nil, err
	}
	entries, err := choose(catalog, name)
	if err != nil {
		return nil, err
	}
	log := newLogger(o.Stderr, config.Log{Level: "error"})
	files, err := store.Open(ctx, o.storeDir(), log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	cache, err := o.schemas()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cache.Close()) }()
	host, err := pluginhost.New(pluginhost.Options{NoCgroups: true, Schemas: cache, Log: log})
	if err != nil {
		return nil, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), pluginsStop)
		defer cancel()
		err = errors.Join(err, host.Stop(ctx))
	}()
	var all []plugindoc.Plugin
	for _, e := range entries {
		p, e := describe(ctx, host, files, e)
		if err = errors.Join(err, e); e == nil {
			all = append(all, p)
		}
	}
	return all, err
}

func describe(ctx context.Context, host *pluginhost.Host, files *store.Store, e pluginhost.Entry) (_ plugindoc.Plugin, err error) {
	if err := e.Take(ctx, files); err != nil {
		return plugindoc.Plugin{}, err
	}
	defer func() { err = errors.Join(err, e.Bundle.Close()) }()
	d, err := host.Describe(ctx, e)
	if err != nil {
		return plugindoc.Plugin{}, err
	}
	return plugindoc.Plugin{
		Manifest: e.Manifest, File: e.File, Program: e.Program, Digest: e.Bundle.Digest,
		Version: d.Version, Doc: d.Doc, Schema: d.Schema,
	}, nil
}

// choose finds the plugins that a name means.
func choose(c *pluginhost.Catalog, name string) ([]pluginhost.Entry, error) {
	kind, base, exact := strings.Cut(name, "/")
	if !exact {
		kind, base = "", name
	}
	var entries []pluginhost.Entry
	var known []string
	var wrong error
	for _, k := range config.PluginKinds() {
		names, err := c.Names(k)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			known = append(known, string(k)+"/"+n)
			if name != "" && (n != base || exact && string(k) != kind) {
				continue
			}
			e, err := c.Find(k, n)
			if err != nil {
				wrong = errors.Join(wrong, err)
				continue
			}
			entries = append(entries, e)
		}
	}
	switch {
	case wrong != nil:
		return nil, wrong
	case len(known) == 0:
		return nil, fmt.Errorf("there are no plugins in %s: build them (make build), or name their directory with --dir", strings.Join(c.Dirs(), " or "))
	case len(entries) == 0:
		return nil, fmt.Errorf("there is no plugin %q in %s.%s There are %s", name, strings.Join(c.Dirs(), " or "), nearest(name, known), strings.Join(known, ", "))
	case name != "" && len(entries) > 1:
		var full []string
		for _, e := range entries {
			full = append(full, e.String())
		}
		return nil, fmt.Errorf("%q are %d plugins: say which, %s", name, len(entries), strings.Join(full, " or "))
	}
	return entries, nil
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

// schemas opens what is kept of the plugins' descriptions. Who is not root could
// protect none, and has none.
func (o Options) schemas() (*schemas.Cache, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	return schemas.Open(filepath.Join(o.stateDir(), "schemas"))
}
