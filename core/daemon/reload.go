package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/filter"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// errEnding says that it is too late for a reload.
var errEnding = errors.New("the daemon has stopped")

// What a reload does to a part of the configuration.
const (
	started  = "started"
	replaced = "replaced"
	stopped  = "stopped"
	attached = "attached"
	detached = "detached"
	changed  = "changed"
	kept     = "kept"
)

// nextStart is why a setting is kept that is wired in at the start.
const nextStart = "it takes effect at the next start of the daemon"

// obeyHangups reloads for each SIGHUP, until ctx is done.
func (d *daemon) obeyHangups(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.hangups:
		}
		if _, err := d.Reload(ctx); err != nil && ctx.Err() == nil {
			d.log.Error("reload the configuration", "error", err)
		}
	}
}

// Reload reads the configuration anew and checks it as a whole, as at the start.
// When anything is wrong nothing changes, and the answer says what. Else what
// differs is taken over, part by part: a part that can't be is kept as it was, with
// the reason. Whoever calls while another reload is under way waits for it. Once
// the configuration has been checked, ctx ends it no longer, only the run's end
// does.
func (d *daemon) Reload(ctx context.Context) (*protov1.ReloadResponse, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.working, func() { cancel(errEnding) })()
	select {
	case d.reloading <- struct{}{}:
		defer func() { <-d.reloading }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if d.working.Err() != nil {
		return nil, errEnding
	}
	file, found := config.ReadFile(d.options.ConfigFile)
	var plugins []plugin
	var err error
	if !found.HasErrors() || len(file.Plugins()) > 0 {
		plugins, found, err = checkPlugins(ctx, d.host, d.options, file, found)
	}
	if err == nil && found.HasErrors() {
		err = configError(d.options.ConfigFile, found)
	}
	var auto []*candidate
	if err == nil && file.Config.Auto != nil {
		auto, err = d.options.candidates(ctx, file)
	}
	if ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), closeBundles(plugins), closeCandidates(auto))
	}
	if err != nil {
		err = errors.Join(err, closeBundles(plugins), closeCandidates(auto))
		d.log.Error("the configuration is refused, and nothing has changed", "reason", err)
		return &protov1.ReloadResponse{Refused: err.Error()}, nil
	}
	var warnings bytes.Buffer
	if err := showWarnings(&warnings, found); err != nil {
		return nil, errors.Join(err, closeBundles(plugins), closeCandidates(auto))
	}
	r := &reload{daemon: d, ctx: d.working}
	r.takeLog(file.Config)
	r.takeSettings(file.Config)
	r.takePlugins(file, plugins, auto)
	r.takeProbes(file.Config.Probes)
	d.log.Info("the configuration was reloaded", "file", d.options.ConfigFile, "changes", len(r.changes))
	if warnings.Len() > 0 {
		d.log.Warn("the configuration has warnings", "text", warnings.String())
	}
	return &protov1.ReloadResponse{Warnings: warnings.String(), Changes: r.changes}, nil
}

// reload takes over one configuration that was checked.
type reload struct {
	*daemon
	ctx     context.Context
	changes []*protov1.ReloadResponse_Change
}

// tell notes what became of a part. err is why it went wrong, nil if it did not.
func (r *reload) tell(what, action, reason string, err error) {
	c := &protov1.ReloadResponse_Change{What: what, Action: action, Reason: reason}
	if err != nil {
		c.Reason, c.Failed = err.Error(), true
		r.log.Error("reload: "+what+" is "+action, "reason", err)
	} else {
		r.log.Info("reload: "+what+" is "+action, because(reason)...)
	}
	r.changes = append(r.changes, c)
}

// because is a reason for the log, nothing for none.
func because(reason string) []any {
	if reason == "" {
		return nil
	}
	return []any{"reason", reason}
}

// takeLog takes over how the daemon's log is written. Plugins ask for the level when
// they start.
func (r *reload) takeLog(next config.Config) {
	if next.Log == r.applied.Log {
		return
	}
	r.logSettings.set(next.Log)
	r.applied.Log = next.Log
	r.tell("log", changed, "", nil)
}

// takeSettings names what is wired in at the start, and is not what runs.
func (r *reload) takeSettings(next config.Config) {
	if !slices.Equal(next.Plugins.Dirs, r.applied.Plugins.Dirs) {
		r.applied.Plugins = next.Plugins // they have been searched already
		r.tell("plugins", changed, "", nil)
	}
	if !reflect.DeepEqual(next.Filters, r.applied.Filters) || !reflect.DeepEqual(next.Priorities, r.applied.Priorities) {
		err := r.filters.Set(filter.Config, filterRules(next))
		if err == nil {
			r.labels.Set(labelsOf(next.Priorities))
			r.applied.Filters, r.applied.Priorities = next.Filters, next.Priorities
		}
		r.tell("filters and priorities", changed, "", err)
	}
	if next.Budget != r.applied.Budget {
		r.applied.Budget = next.Budget
		r.limitMemory(next.Budget)
		r.governor.SetBudget(budgetOf(next.Budget), limitsOf(next.Budget))
		r.tell("budget", changed, "", nil)
	}
	if !reflect.DeepEqual(next.Shares, r.applied.Shares) {
		err := r.shares.Set(sharesOf(next.Shares))
		if err == nil {
			r.applied.Shares = next.Shares
		}
		r.tell("shares of the budget", changed, "", err)
	}
	now := r.config
	for _, s := range []struct {
		what      string
		now, next any
	}{
		{"node", now.Node, next.Node},
		{"sandbox of plugins", now.Plugins.Sandbox, next.Plugins.Sandbox},
		{"kernel", now.Kernel, next.Kernel},
		{"attribution", now.Attribution, next.Attribution},
		{"load", now.Load, next.Load},
		{"resources", now.Resources, next.Resources},
		{`exporter "json"`, now.Exporters.JSON, next.Exporters.JSON},
		{`exporter "prometheus"`, now.Exporters.Prometheus, next.Exporters.Prometheus},
		{"api", now.API, next.API},
	} {
		if !reflect.DeepEqual(s.now, s.next) {
			r.tell(s.what, kept, nextStart, nil)
		}
	}
}

// takeProbes attaches and detaches, each probe by itself.
func (r *reload) takeProbes(next config.Probes) {
	wanted := probes(next)
	args := func(p config.Probes) bool { return p.Process == nil || p.Process.Args }
	if args(next) != args(r.applied.Probes) {
		err := r.kernel.ReadArgs(args(next))
		switch {
		case err != nil:
			r.tell(`probe "process"`, kept, "", err)
		case next.Process != nil && r.applied.Probes.Process != nil:
			r.tell(`probe "process"`, changed, "", nil)
		}
	}
	r.applied.Probes = next
	// What the file says now is what is there: what was shed comes back, and goes again
	// if it must.
	r.shedding.Lock()
	defer r.shedding.Unlock()
	r.shedding.away = nil
	var there []string
	for _, p := range r.kernel.Probes() {
		there = append(there, p.Name)
	}
	for _, name := range wanted {
		if slices.Contains(there, name) {
			continue
		}
		what := fmt.Sprintf("probe %q", name)
		if err := r.kernel.AttachProbe(name); err != nil {
			r.tell(what, kept, "", err)
			continue
		}
		r.tell(what, attached, r.partly(name), nil)
	}
	for _, name := range kernel.ProbeNames() {
		if slices.Contains(wanted, name) || !slices.Contains(there, name) {
			continue
		}
		r.tell(fmt.Sprintf("probe %q", name), detached, "", r.kernel.DetachProbe(name))
	}
}
