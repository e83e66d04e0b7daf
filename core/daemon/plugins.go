package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/store"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
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
	host, err := pluginhost.New(pluginhost.Options{
		NoCgroups: true, Log: newLogger(o.Stderr, config.Log{Level: "error"}),
	})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), pluginsStop)
		defer cancel()
		err = errors.Join(err, host.Stop(ctx))
	}()
	plugins, found, err := checkPlugins(ctx, host, o, file, found)
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
	catalog, err := o.catalog(file)
	if err != nil {
		return nil, found, err
	}
	files, err := store.Open(ctx, o.storeDir(), newLogger(o.Stderr, file.Config.Log))
	if err != nil {
		return nil, found, err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	asked := map[string]asking{}
	defer func() {
		for _, a := range asked {
			a.session.Close()
		}
	}()
	var plugins []plugin
	taken := []*store.Bundle{}
	defer func() {
		if plugins == nil {
			for _, b := range taken {
				err = errors.Join(err, b.Close())
			}
		}
	}()
	configs, more := file.DecodePlugins(func(ref config.PluginRef) (schema.Block, error) {
		entry, err := catalog.Find(ref.Kind, ref.Name)
		if err == nil {
			err = entry.Take(ctx, files)
		}
		if err != nil {
			return schema.Block{}, err
		}
		taken = append(taken, entry.Bundle)
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
		err = errors.Join(err, p.entry.Bundle.Close())
	}
	return err
}

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

func (d *daemon) runPlugins(ctx context.Context) error {
	for _, p := range d.plugins {
		spec := pluginhost.Spec{
			Entry: p.entry, Config: p.config.JSON, Node: d.node(),
			Memory: p.config.Ref.Host.Memory, StartTimeout: p.config.Ref.Host.StartTimeout,
		}
		log := d.log.With("plugin", p.config.Ref.String())
		var err error
		switch p.config.Ref.Kind {
		case config.Discoverer:
			err = d.runDiscoverer(ctx, spec, p.config.Ref.Name, log)
		case config.Mesh:
			err = d.runDetector(ctx, spec, p.config.Ref.Name, log)
		case config.Sampler:
			err = d.runSampler(ctx, spec, log)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *daemon) node() *protov1.Node {
	return &protov1.Node{
		Name: d.config.Node.Name, DaemonVersion: d.options.Version, CgroupRoot: d.root,
	}
}

func (d *daemon) runDiscoverer(ctx context.Context, spec pluginhost.Spec, name string, log *slog.Logger) error {
	// The observer may be called before the discoverer is there to be told; it
	// can't have subscribed by then.
	var discoverer atomic.Pointer[pluginhost.Discoverer]
	d.observe(ctx, inventory.Observer{Cgroup: func(f *protov1.HostFact) {
		if to := discoverer.Load(); to != nil {
			to.Tell(f)
		}
	}})
	run, err := d.host.RunDiscoverer(ctx, spec, pluginhost.DiscovererHandler{
		Changes: func(changes []*protov1.InventoryChange) {
			if err := d.inventory.Apply(name, changes); err != nil {
				log.Error("apply what a discoverer found", "error", err)
			}
		},
		Lost: func(reason string) {
			if ctx.Err() != nil {
				return // all ends: what is still to be written is not stale
			}
			log.Warn("a discoverer is away; what it told stays, marked stale", "reason", reason)
			d.inventory.Away(name)
		},
		Facts: func(s *protov1.Subscribe) []*protov1.HostFact {
			if !s.GetCgroups() {
				return nil
			}
			return d.inventory.Cgroups()
		},
	})
	if err != nil {
		return err
	}
	discoverer.Store(run)
	return nil
}

func (d *daemon) runDetector(ctx context.Context, spec pluginhost.Spec, name string, log *slog.Logger) error {
	var detector atomic.Pointer[pluginhost.Detector]
	d.observe(ctx, inventory.Observer{Workload: func(c *protov1.InventoryChange) {
		if to := detector.Load(); to != nil {
			to.Tell(c)
		}
	}})
	mesh := d.inventory.Mesh(name)
	run, err := d.host.RunDetector(ctx, spec, pluginhost.DetectorHandler{
		Changes: func(changes []*protov1.MeshChange) {
			if err := mesh.Apply(changes); err != nil {
				log.Error("apply what a detector found", "error", err)
			}
		},
		Lost: func(reason string) {
			if ctx.Err() != nil {
				return // all ends: what is still to be written is not stale
			}
			log.Warn("a mesh detector is away; what it told stays", "reason", reason)
		},
		Workloads: d.inventory.Workloads,
	})
	if err != nil {
		return err
	}
	detector.Store(run)
	return nil
}

// observe observes the inventory until ctx is done.
func (d *daemon) observe(ctx context.Context, o inventory.Observer) {
	stop := d.inventory.Observe(o)
	d.goes(func() {
		<-ctx.Done()
		stop()
	})
}

func (d *daemon) runSampler(ctx context.Context, spec pluginhost.Spec, log *slog.Logger) error {
	_, err := d.host.RunSampler(ctx, spec, pluginhost.SamplerHandler{
		Interval: func(asked time.Duration) time.Duration {
			if asked > 0 {
				return min(max(asked, minInterval), maxInterval)
			}
			return d.config.Load.Interval
		},
		Report: func(uint64) *protov1.Report { return d.governor.Report() },
		Answer: d.governor.Answer,
		Lost: func(reason string) {
			if ctx.Err() != nil {
				return // all ends: what is still to be written is not stale
			}
			log.Warn("the sampler is away; its last policy goes on until its time is up", "reason", reason)
		},
	})
	return err
}

// Bounds of the report interval that a sampler may ask for.
const (
	minInterval = 250 * time.Millisecond
	maxInterval = time.Minute
)
