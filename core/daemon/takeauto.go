package daemon

import (
	"slices"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
)

// autoBlock is what the configuration calls it.
const autoBlock = `discoverer "auto"`

// takeAuto takes over discoverer "auto" of a file, which looks for all. left are plugins
// that run and that the file does not name: those that are looked for go on, with their
// defaults, the others are ended. It returns those that go on. Whether their runtimes
// are here they are asked afterwards, and so is every other.
func (r *reload) takeAuto(file *config.File, all []*candidate, left []*running) (next []*running) {
	settings, before := file.Config.Auto, r.applied.Auto
	was := r.auto.known()
	for _, old := range left {
		i := slices.IndexFunc(all, func(c *candidate) bool {
			return old.config.Ref.Kind == config.Discoverer && old.config.Ref.Name == c.name
		})
		why := ""
		if i >= 0 {
			if why = r.adopt(old, all[i], was[all[i].name]); why == "" {
				next = append(next, old)
				continue
			}
		}
		r.end(old, why)
	}
	for _, c := range all {
		if k, ok := was[c.name]; ok && c.skip == "" {
			c.asked, c.present, c.detail, c.answered = k.asked, k.present, k.detail, k.answered
		}
	}
	if settings != nil || before != nil {
		r.auto.set(settings, others(file), all)
	}
	r.applied.Auto = settings
	switch {
	case settings == nil && before != nil:
		r.tell(autoBlock, stopped, "", nil)
	case settings != nil && before == nil:
		r.tell(autoBlock, started, "", nil)
	case !before.Equal(settings):
		r.tell(autoBlock, changed, "", nil)
	}
	return next
}

// adopt makes a plugin that runs one that discoverer "auto" has started, or says why it
// can't be. was is the same candidate before the reload.
func (r *reload) adopt(old *running, c *candidate, was known) (why string) {
	if c.skip != "" {
		return c.skip
	}
	var err error
	self := &self{}
	if was.self != nil && was.digest == c.entry.Bundle.Digest {
		self.schema = was.self.schema
	} else {
		var about pluginhost.Description
		about, err = r.host.Describe(r.ctx, c.entry)
		self.schema = about.Schema
	}
	if err == nil {
		self.config, err = c.file.AutoPlugin(c.name, self.schema)
	}
	if err != nil {
		return said(err.Error())
	}
	p := plugin{entry: c.entry, config: self.config}
	p.entry.Bundle.Hold()
	r.takeOne(old, p)
	c.running, c.ready, c.self, c.plugin = true, true, self, old.supervised
	return ""
}

// known is what is known of a candidate.
type known struct {
	sought
	self   *self
	digest string
}

// known is what is known of the candidates, by name.
func (a *auto) known() map[string]known {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string]known{}
	for _, c := range a.all {
		k := known{sought: c.sought, self: c.self}
		if c.entry.Bundle != nil {
			k.digest = c.entry.Bundle.Digest
		}
		out[c.name] = k
	}
	return out
}
