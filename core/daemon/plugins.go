package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// plugin is one plugin of the configuration, checked.
type plugin struct {
	entry  pluginhost.Entry
	config config.PluginConfig
}

// Validate checks a configuration as Run would, and starts nothing: plugins are
// asked for their schemas and what they think of their own blocks, and end again.
// Warnings go to Stderr. It needs no root.
func Validate(ctx context.Context, o Options) (err error) {
	file, found := config.ReadFile(o.ConfigFile)
	if found.HasErrors() && len(file.Plugins()) == 0 {
		return configError(o.ConfigFile, found)
	}
	ask, err := o.asker()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ask.close()) }()
	plugins, found, err := checkPlugins(ctx, ask.Host, o, file, found)
	if err := errors.Join(err, closeBundles(plugins)); err != nil {
		return err
	}
	if found.HasErrors() {
		return configError(o.ConfigFile, found)
	}
	return showWarnings(o.Stderr, found)
}

// checkPlugins checks every plugin's block: against its schema, and when nothing
// at all was wrong so far, by the plugin itself. found are the findings before,
// and come back with those of here. The plugins' files are taken, to be closed by
// the caller; without plugins there are none.
func checkPlugins(ctx context.Context, host *pluginhost.Host, o Options, file *config.File, found config.Diagnostics) (_ []plugin, _ config.Diagnostics, err error) {
	lock, more := config.ReadLock(o.ConfigFile)
	if more.HasErrors() {
		return nil, config.Join(found, more), nil // nothing runs that it might forbid
	}
	files, err := o.finder(ctx, file, o.storeDir())
	if err != nil {
		return nil, found, err
	}
	defer func() { err = errors.Join(err, files.close()) }()
	asked := map[string]asking{}
	defer func() {
		var closing sync.WaitGroup // side by side: one that hangs takes its time
		for _, a := range asked {
			closing.Go(a.session.Close)
		}
		closing.Wait()
	}()
	if file.Config.Auto != nil {
		installed, err := files.catalog.Names(config.Discoverer)
		if err != nil {
			return nil, found, err
		}
		found = config.Join(found, file.CheckAuto(installed))
	}
	all := files.findAll(ctx, file.Plugins())
	var plugins []plugin
	defer func() {
		if plugins == nil {
			for _, f := range all {
				if f.err == nil {
					err = errors.Join(err, f.entry.Bundle.Close())
				}
			}
		}
	}()
	configs, more := file.DecodePlugins(func(ref config.PluginRef) (schema.Block, error) {
		entry, err := all[ref.String()].entry, all[ref.String()].err
		if err != nil {
			return schema.Block{}, err
		}
		if err := lock.Check(ref, platform, lockedFiles(entry)); err != nil {
			return schema.Block{}, err
		}
		if found.HasErrors() {
			// It won't be asked what it thinks: what it said before is enough.
			description, err := host.Describe(ctx, entry)
			return description.Schema, err
		}
		session, err := host.Open(ctx, entry)
		if err != nil {
			return schema.Block{}, err
		}
		asked[ref.String()] = asking{entry, session}
		description, err := session.Describe(ctx)
		return description.Schema, err
	})
	if found = config.Join(found, more); found.HasErrors() {
		return nil, found, nil
	}
	checked := make([]plugin, 0, len(configs))
	for _, c := range configs {
		a := asked[c.Ref.String()]
		says, err := a.session.Validate(ctx, c.JSON)
		if err != nil {
			return nil, found, fmt.Errorf("ask %s to check its configuration: %w", c.Ref, err)
		}
		found = config.Join(found, c.Diagnostics(says))
		checked = append(checked, plugin{entry: a.entry, config: c})
	}
	if !found.HasErrors() {
		plugins = checked
	}
	return plugins, found, nil
}

// asking is a plugin that runs only to be asked.
type asking struct {
	entry   pluginhost.Entry
	session *pluginhost.Session
}

// closeBundles gives the plugins' files back.
func closeBundles(plugins []plugin) error {
	var err error
	for _, p := range plugins {
		err = errors.Join(err, p.close())
	}
	return err
}

// close gives the plugin's files back. No process of it may be started any more.
func (p plugin) close() error { return p.entry.Bundle.Close() }

// catalog finds the plugins of a configuration.
func (o Options) catalog(file *config.File) (*pluginhost.Catalog, error) {
	dir, err := o.pluginDir()
	if err != nil {
		return nil, err
	}
	return pluginhost.NewCatalog(append([]string{dir}, file.Config.Plugins.Dirs...))
}

// stateDir is StateDir or its default.
func (o Options) stateDir() string { return cmp.Or(o.StateDir, "/var/lib/ebpf-tracer") }

// storeDir is where the files of plugins are kept. Who is not root could protect
// none there, and has none.
func (o Options) storeDir() string {
	if os.Geteuid() != 0 {
		return ""
	}
	return filepath.Join(o.stateDir(), "store")
}

// sampler is the name of the configured sampler.
func (d *daemon) sampler() string {
	for _, p := range d.plugins {
		if p.config.Ref.Kind == config.Sampler {
			return p.config.Ref.Name
		}
	}
	return ""
}

// runPlugins starts the plugins of the configuration, and lets the sampler speak.
func (d *daemon) runPlugins(ctx context.Context) error {
	for _, p := range d.plugins {
		r, err := d.run(ctx, p)
		if err != nil {
			return err
		}
		d.current = append(d.current, r)
		if r.turn != nil {
			r.turn.begin(p.config.Ref.Name)
		}
	}
	return nil
}
