package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
)

// maxSaid is how much is kept of what a discoverer says when it is asked, in bytes.
const maxSaid = 500

// candidates are the discoverers that discoverer "auto" of a file looks for: those that
// are installed, and that the file does not name. Those that can't be asked are skipped.
// Their files are taken, to be closed by the caller.
func (o Options) candidates(ctx context.Context, file *config.File) (all []*candidate, err error) {
	lock, found := config.ReadLock(o.ConfigFile)
	if found.HasErrors() {
		return nil, configError(o.ConfigFile, found) // nothing runs that it might forbid
	}
	files, err := o.finder(ctx, file, o.storeDir())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err = errors.Join(err, files.close()); err != nil {
			err = errors.Join(err, closeCandidates(all))
			all = nil
		}
	}()
	refs, err := autoRefs(files.catalog, file)
	if err != nil {
		return nil, err
	}
	taken := files.findAll(ctx, refs)
	for _, ref := range refs {
		f := taken[ref.String()]
		c := &candidate{sought: sought{name: ref.Name}, file: file}
		if f.err == nil {
			c.entry = f.entry
			c.fallback = f.entry.Manifest.Auto.Fallback
			f.err = lock.Check(ref, platform, lockedFiles(f.entry))
		}
		switch locked := (*config.LockError)(nil); {
		case errors.As(f.err, &locked):
			c.skip = locked.Short()
		case f.err != nil:
			c.skip = said(f.err.Error())
		case !c.entry.Manifest.Auto.Enabled:
			c.skip = "its manifest says that it is not started by itself"
		}
		all = append(all, c)
	}
	return all, nil
}

// closeCandidates gives back the files of candidates that are not to be looked for.
func closeCandidates(all []*candidate) error {
	var err error
	for _, c := range all {
		if c.entry.Bundle != nil {
			err = errors.Join(err, c.entry.Bundle.Close())
		}
	}
	return err
}

// autoRefs are the discoverers that discoverer "auto" of a file looks for.
func autoRefs(catalog *pluginhost.Catalog, file *config.File) ([]config.PluginRef, error) {
	names, err := catalog.Names(config.Discoverer)
	if err != nil {
		return nil, err
	}
	var refs []config.PluginRef
	for _, name := range names {
		named := slices.ContainsFunc(file.Plugins(), func(r config.PluginRef) bool { return r.Kind == config.Discoverer && r.Name == name })
		if !named && file.Config.Auto.Wants(name) {
			refs = append(refs, config.PluginRef{Kind: config.Discoverer, Name: name, Host: file.Config.Auto.Host, Auto: true})
		}
	}
	return refs, nil
}

// others are how many discoverers a file names.
func others(file *config.File) int {
	n := 0
	for _, r := range file.Plugins() {
		if r.Kind == config.Discoverer {
			n++
		}
	}
	return n
}

// said is what a plugin says, or what is said of it, as far as it is kept.
func said(s string) string {
	if len(s) > maxSaid {
		s = s[:maxSaid] + "…"
	}
	return strings.ToValidUTF8(s, "")
}

// detect asks a candidate whether its runtime is here, in a process of its own. It
// returns what it said of itself, nil when it did not or can't be run so.
func (c *candidate) detect(ctx context.Context, host *pluginhost.Host, spec pluginhost.Spec) (answer, *self) {
	how := c.file.Config.Auto.Host
	spec.Entry, spec.Memory, spec.Processes, spec.StartTimeout = c.entry, how.Memory, how.Processes, how.StartTimeout
	var told *self
	d, err := host.Detect(ctx, spec, func(about pluginhost.Description) ([]byte, error) {
		p, err := c.file.AutoPlugin(c.name, about.Schema)
		if err != nil {
			return nil, err
		}
		told = &self{about.Schema, p}
		return p.JSON, nil
	})
	a := answer{present: d.Present, detail: said(d.Detail), ready: told != nil}
	switch needs := (*config.NeedsArgumentsError)(nil); {
	case errors.As(err, &needs):
		a.skip = said(needs.Error())
	case err != nil:
		a.err = errors.New(said(err.Error()))
	}
	return a, told
}

// search is what discoverer "auto" does to the daemon.
type search struct{ *daemon }

var _ hands = search{}

func (s search) ask(ctx context.Context, c *candidate) (answer, *self) {
	a, told := c.detect(ctx, s.host, pluginhost.Spec{Node: s.node()})
	a.there = c.there()
	return a, told
}

func (s search) watch(c *candidate, changed func(bool)) (func() bool, func()) {
	w := s.host.Watch(c.entry, changed)
	return w.There, w.Close
}

func (s search) alone(ctx context.Context, f func()) bool {
	select {
	case s.reloading <- struct{}{}:
		defer func() { <-s.reloading }()
		f()
		return true
	case <-ctx.Done():
		return false
	}
}

func (s search) start(ctx context.Context, c *candidate) error {
	p := plugin{entry: c.entry, config: c.self.config}
	p.entry.Bundle.Hold()
	r, err := s.run(ctx, p)
	if err != nil {
		return errors.Join(err, p.close())
	}
	c.plugin = r.supervised
	s.current, s.plugins = append(s.current, r), append(s.plugins, p)
	return nil
}

func (s search) stop(c *candidate) error {
	i := slices.IndexFunc(s.current, func(r *running) bool { return r.supervised == c.plugin })
	if i < 0 {
		return fmt.Errorf("%s does not run", c.ref())
	}
	r := s.current[i]
	s.current, s.plugins = slices.Delete(s.current, i, i+1), slices.Delete(s.plugins, i, i+1)
	return errors.Join(r.stop(), r.close())
}

func (search) ill(c *candidate) bool {
	switch c.plugin.Status().State {
	case pluginhost.Degraded, pluginhost.Backoff, pluginhost.Failed:
		return true
	}
	return false
}

func (search) cure(c *candidate) { c.plugin.Restart() }

// begin looks for what there is at the start, while its caller keeps reloads off.
func (s search) begin(ctx context.Context, file *config.File) {
	if file.Config.Auto == nil {
		return
	}
	all, err := s.options.candidates(ctx, file)
	if err != nil {
		s.log.Error(`discoverer "auto" can't look for runtimes`, "error", err)
		return
	}
	if len(all) == 0 {
		s.log.Warn(`discoverer "auto" has nothing to look for: no discoverer is installed, or all are named or excepted`)
	}
	s.auto.set(file.Config.Auto, others(file), all)
}
