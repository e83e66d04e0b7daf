package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Plan is what Run would do with a configuration on this host.
type Plan struct {
	ConfigFile string        `json:"config_file"`
	Node       string        `json:"node"`
	User       int           `json:"user"` // of who made the plan: without root it is not what a daemon of root gets
	Locked     bool          `json:"locked"`
	Probes     []ProbePlan   `json:"probes"`
	Resources  *ResourcePlan `json:"resources,omitempty"` // nil: the configuration has none
	Budget     BudgetPlan    `json:"budget"`
	Filters    []FilterPlan  `json:"filters,omitempty"`
	Priorities []FilterPlan  `json:"priorities,omitempty"`
	Plugins    []PluginPlan  `json:"plugins"`
	// Auto is what discoverer "auto" looks for; nil: the file has none. Those that it
	// would start now are among Plugins too.
	Auto []AutoPlan `json:"auto,omitempty"`
}

// AutoPlan is a discoverer that discoverer "auto" looks for.
type AutoPlan struct {
	Name string `json:"name"`
	// State is found, fallback (it is started for want of another), absent, unknown (it
	// could not be asked) or skipped.
	State  string `json:"state"`
	Detail string `json:"detail,omitempty"` // where it was found, or why not
}

// ProbePlan is a probe and what this kernel can take of it.
type ProbePlan struct {
	Name     string   `json:"name"`
	State    string   `json:"state"` // attached, partial, unavailable; unknown: it takes root to tell
	Reason   string   `json:"reason,omitempty"`
	Programs []string `json:"programs,omitempty"`
	Unseen   []string `json:"unseen"`
}

// PluginPlan is a plugin, what it asks for and what it gets.
type PluginPlan struct {
	Kind           config.PluginKind `json:"kind"`
	Name           string            `json:"name"`
	Version        string            `json:"version"`
	Found          string            `json:"found,omitempty"` // where discoverer "auto" found its runtime
	Program        string            `json:"program"`
	Digest         string            `json:"digest"`           // of all its files
	Weaker         string            `json:"weaker,omitempty"` // why its hash says less than others
	Asks           []string          `json:"asks"`             // in its manifest, and in the operator's words
	Granted        []string          `json:"granted"`
	Applied        []string          `json:"applied"`
	NotApplied     []string          `json:"not_applied"`
	User           uint32            `json:"user"`
	RootEquivalent string            `json:"root_equivalent,omitempty"`
}

// MakePlan checks a configuration as Run would, tries on this host what Run would do
// (probes are attached for a moment, each plugin's confinement is built and left), and
// starts nothing. Plugins run only to be asked for their schemas and, by discoverer
// "auto", whether their runtimes are here. A *ConfigError says what is wrong with the
// configuration.
func MakePlan(ctx context.Context, o Options) (_ *Plan, err error) {
	file, found := config.ReadFile(o.ConfigFile)
	if found.HasErrors() && len(file.Plugins()) == 0 {
		return nil, configError(o.ConfigFile, found)
	}
	kept, err := o.schemas()
	if err != nil {
		return nil, err
	}
	host, err := pluginhost.New(pluginhost.Options{
		StateDir: o.planState(), Schemas: kept, Log: newLogger(o.Stderr, config.Log{Level: "error"}),
		HostRoot: file.Config.Node.HostRoot,
	})
	if err != nil {
		return nil, errors.Join(err, kept.Close())
	}
	defer func() { err = errors.Join(err, stopHost(host), kept.Close()) }()
	plugins, found, err := checkPlugins(ctx, host, o, file, found)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeBundles(plugins)) }()
	if found.HasErrors() {
		return nil, configError(o.ConfigFile, found)
	}
	if err := showWarnings(o.Stderr, found); err != nil {
		return nil, err
	}
	if err := checkHostRoot(file.Config.Node.HostRoot); err != nil {
		return nil, err
	}
	lock, _ := config.ReadLock(o.ConfigFile) // its mistakes were found above
	p := &Plan{ConfigFile: o.ConfigFile, Node: file.Config.Node.Name, User: os.Geteuid(), Locked: lock.Exists}
	if p.Probes, err = planProbes(file.Config); err != nil {
		return nil, err
	}
	if p.Resources, err = planResources(file.Config); err != nil {
		return nil, err
	}
	p.Budget = planBudget(file.Config)
	p.Filters, p.Priorities = planFilters(file.Config), planPriorities(file.Config)
	d := &daemon{options: o, config: file.Config}
	for _, x := range plugins {
		one, err := planPlugin(ctx, host, d.spec(x), x)
		if err != nil {
			return nil, err
		}
		p.Plugins = append(p.Plugins, one)
	}
	if file.Config.Auto != nil {
		if err := d.planAuto(ctx, host, file, p); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// planAuto asks once whom discoverer "auto" would ask, and plans what it would start.
func (d *daemon) planAuto(ctx context.Context, host *pluginhost.Host, file *config.File, p *Plan) (err error) {
	all, err := d.options.candidates(ctx, file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeCandidates(all)) }()
	now := time.Now()
	decide := &seek{others: others(file)}
	var group errgroup.Group
	group.SetLimit(askedAtOnce)
	for _, c := range all {
		decide.all = append(decide.all, &c.sought)
		if c.skip != "" {
			continue
		}
		group.Go(func() error {
			var a answer
			a, c.self = c.detect(ctx, host, pluginhost.Spec{Node: d.node()})
			(&seek{}).answer(&c.sought, a, now)
			return nil // each has its own
		})
	}
	_ = group.Wait() // as no function of it returns one
	start, _ := decide.decide(now)
	for _, c := range all {
		if !slices.Contains(start, &c.sought) {
			state, why := c.state()
			p.Auto = append(p.Auto, AutoPlan{Name: c.name, State: state, Detail: why})
			continue
		}
		c.running = true
		x := plugin{entry: c.entry, config: c.self.config}
		one, err := planPlugin(ctx, host, d.spec(x), x)
		if err != nil {
			return err
		}
		one.Found = c.found()
		p.Plugins = append(p.Plugins, one)
		state := "found"
		if !c.present {
			state = "fallback"
		}
		p.Auto = append(p.Auto, AutoPlan{Name: c.name, State: state, Detail: one.Found})
	}
	return nil
}

// planState is where plugins would keep state; who is not root makes no directories.
func (o Options) planState() string {
	if os.Geteuid() != 0 {
		return ""
	}
	return o.stateDir()
}

// planProbes loads and attaches the probes, and lets them go.
func planProbes(c config.Config) (_ []ProbePlan, err error) {
	names := probes(c.Probes)
	var out []ProbePlan
	for _, n := range names {
		out = append(out, ProbePlan{Name: n, State: "unknown", Reason: "it takes root to tell", Unseen: kernel.Unseen(n)})
	}
	if os.Geteuid() != 0 {
		return out, nil
	}
	k, err := kernel.Load(kernel.Options{Probes: names, RingBytes: os.Getpagesize(), Rings: 1})
	if errors.Is(err, kernel.ErrNotPermitted) || errors.Is(err, kernel.ErrNoProbe) || errors.Is(err, kernel.ErrNoBTF) {
		for i := range out {
			out[i].State, out[i].Reason = "unavailable", err.Error()
		}
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	for _, p := range k.Probes() {
		if i := slices.IndexFunc(out, func(o ProbePlan) bool { return o.Name == p.Name }); i >= 0 {
			out[i].State, out[i].Reason, out[i].Programs = p.State(), p.Reason(), p.Programs
		}
	}
	return out, errors.Join(k.Detach(), k.Close())
}

func planPlugin(ctx context.Context, host *pluginhost.Host, spec pluginhost.Spec, p plugin) (PluginPlan, error) {
	about, err := host.Describe(ctx, p.entry)
	if err != nil {
		return PluginPlan{}, err
	}
	c, err := host.Try(ctx, spec)
	if err != nil {
		return PluginPlan{}, fmt.Errorf("try what %s may do: %w", p.config.Ref, err)
	}
	out := PluginPlan{
		Kind: p.config.Ref.Kind, Name: p.config.Ref.Name, Version: about.Version,
		Program: p.entry.Bundle.Path(), Digest: p.entry.Bundle.Digest,
		Granted: some(c.Granted), Applied: some(c.Applied), NotApplied: some(c.NotApplied), User: c.UID,
		RootEquivalent: c.RootEquivalent, Asks: asks(p),
	}
	if len(p.entry.Manifest.Files) > 0 {
		out.Weaker = "an interpreter runs it, whose own libraries are not hashed"
	}
	return out, nil
}

// some is a list that is written as one, also when it is empty.
func some(list []string) []string { return append([]string{}, list...) }

// asks are the needs of a plugin's manifest and what the operator's words add.
func asks(p plugin) []string {
	n := p.entry.Manifest.Needs
	out := []string{}
	for _, list := range []struct {
		word  string
		names []string
	}{{"socket", n.Sockets}, {"read", n.Paths}, {"capability", n.Capabilities}, {"variable", n.Env}} {
		for _, name := range list.names {
			out = append(out, list.word+" "+name)
		}
	}
	if n.Network {
		out = append(out, "network")
	}
	if n.Root {
		out = append(out, "user root")
	}
	for _, g := range p.config.Grants() {
		value := g.Value
		if g.Hidden {
			value = "(hidden)"
		}
		word := map[schema.Opens]string{schema.Socket: "socket", schema.Path: "read", schema.Network: "network"}[g.Opens]
		out = append(out, fmt.Sprintf("%s %s, as %s says", word, value, g.Range))
	}
	return out
}
