package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
)

// same tells whether a plugin would run just as another does.
func (p plugin) same(o plugin) bool {
	return p.entry.Bundle.Digest == o.entry.Bundle.Digest && p.entry.Program == o.entry.Program &&
		p.config.Ref.Host == o.config.Ref.Host && bytes.Equal(p.config.JSON, o.config.JSON) &&
		slices.EqualFunc(p.config.Grants(), o.config.Grants(), func(a, b config.Grant) bool {
			return a.Opens == b.Opens && a.Value == b.Value // wherever it stands
		})
}

// takePlugins makes the plugins that run those that are wanted: what is new is
// started, what differs replaced, what is not wanted any more stopped. The rest is
// not touched. What discoverer "auto" has started is the file's from now on if that
// names it, and the other way round.
func (r *reload) takePlugins(file *config.File, wanted []plugin, auto []*candidate) {
	var next []*running
	left := slices.Clone(r.current)
	take := func(of func(config.PluginRef) bool) *running {
		i := slices.IndexFunc(left, func(o *running) bool { return of(o.config.Ref) })
		if i < 0 {
			return nil
		}
		one := left[i]
		left = slices.Delete(left, i, i+1)
		return one
	}
	for _, p := range wanted {
		ref := p.config.Ref
		one := take(func(o config.PluginRef) bool { return o.Kind == ref.Kind && o.Name == ref.Name })
		switch {
		case one != nil:
			r.takeOne(one, p)
		case ref.Kind == config.Sampler: // there is always one
			one = r.succeed(take(func(o config.PluginRef) bool { return o.Kind == ref.Kind }), p)
		default:
			one = r.start(p)
		}
		if one != nil {
			next = append(next, one)
		}
	}
	next = append(next, r.takeAuto(file, auto, left)...)
	r.current, r.daemon.plugins = next, nil
	for _, one := range next {
		r.daemon.plugins = append(r.daemon.plugins, one.plugin)
	}
}

// takeOne puts another process in the place of one, if it would differ.
func (r *reload) takeOne(one *running, p plugin) {
	what := p.config.Ref.String()
	how := ""
	switch was := one.config.Ref.Auto; {
	case was && !p.config.Ref.Auto:
		how = "it was found, and is named now"
	case !was && p.config.Ref.Auto:
		how = `it is no longer named, and discoverer "auto" keeps it`
	}
	if p.same(one.plugin) {
		r.giveBack(p)
		one.config = p.config // its places in the file may be others
		if how != "" {
			r.tell(what, changed, how, nil)
		}
		if one.supervised.Status().State == pluginhost.Failed {
			one.supervised.Restart()
			r.tell(what, started, "it had failed and is tried again", nil)
		}
		return
	}
	if err := one.supervised.Replace(r.ctx, r.spec(p)); err != nil {
		r.giveBack(p)
		r.tell(what, kept, "", err)
		return
	}
	r.giveBack(one.plugin)
	one.plugin = p
	r.tell(what, replaced, how, nil)
}

// start starts a plugin as at the daemon's start: when that goes wrong it is tried
// again.
func (r *reload) start(p plugin) *running {
	one, err := r.run(r.ctx, p)
	if err != nil {
		r.giveBack(p)
		r.tell(p.config.Ref.String(), kept, "", err)
		return nil
	}
	if err = one.supervised.Started(r.ctx); err != nil {
		err = fmt.Errorf("its first start went wrong: %w", err)
	}
	r.tell(p.config.Ref.String(), started, "", err)
	return one
}

// succeed starts another sampler, and gives it the turn once it works. Otherwise
// the old one goes on.
func (r *reload) succeed(old *running, p plugin) *running {
	one, err := r.run(r.ctx, p)
	if err == nil {
		if err = one.supervised.Started(r.ctx); err != nil {
			err = errors.Join(err, one.stop())
		}
	}
	if err != nil {
		r.giveBack(p)
		r.tell(old.config.Ref.String(), kept, "", fmt.Errorf("%s can't take its place: %w", p.config.Ref, err))
		return old
	}
	old.turn.end()
	one.turn.begin(p.config.Ref.Name)
	r.tell(p.config.Ref.String(), started, "", nil)
	r.end(old, "")
	return one
}

// end stops a plugin that is not wanted any more.
func (r *reload) end(old *running, why string) {
	r.tell(old.config.Ref.String(), stopped, why, old.stop())
	r.giveBack(old.plugin)
}

// giveBack closes the files of a plugin of which no process is to be started any
// more.
func (r *reload) giveBack(p plugin) {
	if err := p.close(); err != nil {
		r.log.Error("give back the files of a plugin", "plugin", p.config.Ref.String(), "error", err)
	}
}

// partly says what of a probe could not be attached, "" for nothing.
func (r *reload) partly(name string) string {
	for _, p := range r.kernel.Probes() {
		if p.Name == name {
			return p.Reason()
		}
	}
	return ""
}
