package conformance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Deadlines of the contract, as the daemon has them by default.
const (
	startWithin    = 5 * time.Second
	askWithin      = 10 * time.Second // Describe, Validate, Configure
	healthWithin   = time.Second
	healthMisses   = 2 // in a row
	detectWithin   = 10 * time.Second
	answerWithin   = 10 * time.Second // of a sampler
	settleWithin   = 20 * time.Second // to a snapshot, or to say that the runtime is away
	exitWithin     = 5 * time.Second  // by itself, asked to or orphaned; later it hangs
	exitPromptly   = time.Second      // the daemon's patience
	detectPromptly = 2 * time.Second
)

// Options of Run.
type Options struct {
	// File is the plugin's program, with its manifest beside it, or its manifest.
	File string
	// Config is a configuration file that names the plugin; "": its block is empty.
	Config string
	// Done is called after each check; nil: not.
	Done func(Result)
}

// Run puts a plugin to the test. The error says why that could not be done at all:
// there is no such plugin, or the configuration is wrong.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	catalog, err := pluginhost.NewCatalog(nil)
	if err != nil {
		return nil, err
	}
	entry, err := catalog.At(o.File)
	if err != nil {
		return nil, err
	}
	state, err := os.MkdirTemp("", "ebpf-tracer-test-")
	if err != nil {
		return nil, fmt.Errorf("make a state directory for the plugin: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	heard := &heard{}
	host, err := pluginhost.New(pluginhost.Options{StateDir: state, Log: slog.New(heard)})
	if err != nil {
		return nil, err
	}
	t := &tester{
		host: host, entry: entry, opts: o, heard: heard,
		report: &Report{Plugin: entry.String(), Manifest: entry.File, Program: entry.Program},
	}
	err = t.all(ctx)
	t.end()
	stopping, cancel := context.WithTimeout(context.Background(), exitWithin)
	defer cancel()
	if err = errors.Join(err, host.Stop(stopping)); err != nil {
		return nil, err
	}
	return t.report, ctx.Err()
}

// tester is one run.
type tester struct {
	host   *pluginhost.Host
	entry  pluginhost.Entry
	opts   Options
	heard  *heard
	report *Report

	probe      *pluginhost.Probe // the process at hand; nil: none
	configured bool              // it is

	early  []string // what the first process printed before its handshake
	schema schema.Block
	config []byte // a right one
	grants []config.Grant
	limits config.PluginHost
}

// all makes every check, each on a process that lives: one that did not outlive a
// check is replaced for the next.
func (t *tester) all(ctx context.Context) error {
	t.place()
	t.start(ctx)
	if t.probe == nil {
		return nil // nothing else can be said
	}
	t.describe(ctx)
	if t.schemaBroken() {
		return nil
	}
	if err := t.configuration(); err != nil {
		return err
	}
	t.unconfigured(ctx)
	if !t.configure(ctx) {
		return nil
	}
	t.work(ctx)
	t.hostile(ctx)
	t.ends(ctx)
	t.spoke()
	return nil
}

// check makes one check: do returns what is wrong, and what to do about it.
func (t *tester) check(ctx context.Context, sentence, todo string, do func(ctx context.Context, c *check)) Status {
	if ctx.Err() != nil {
		return Fail // interrupted: nothing is known
	}
	began := time.Now()
	c := &check{}
	do(ctx, c)
	r := Result{Check: sentence, Status: Pass, Found: c.warnings, Took: time.Since(began)}
	switch {
	case len(c.failures) > 0:
		r.Status, r.Found, r.Do = Fail, append(c.failures, c.warnings...), todo
	case len(c.warnings) > 0:
		r.Status, r.Do = Warn, todo
	default:
		r.Found = c.notes
	}
	if p := t.probe; p != nil && r.Status == Fail {
		if died, how := t.died(errAny); died {
			r.Found = append(r.Found, "the process has ended: "+how)
			if out := p.Output(); len(out) > 0 {
				r.Found = append(r.Found, "it wrote last:\n"+strings.Join(out[max(0, len(out)-10):], "\n"))
			}
		}
	}
	t.report.Results = append(t.report.Results, r)
	if t.opts.Done != nil {
		t.opts.Done(r)
	}
	return r.Status
}

// check gathers what one check found. It is safe for concurrent use until the check
// is over.
type check struct {
	mu                        sync.Mutex
	failures, warnings, notes []string
}

func (c *check) failAll(found []string) {
	for _, f := range found {
		c.failf("%s", f)
	}
}

func (c *check) failf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures = append(c.failures, fmt.Sprintf(format, args...))
}

func (c *check) warnf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

func (c *check) notef(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

func (t *tester) spec() pluginhost.Spec {
	return pluginhost.Spec{
		Entry: t.entry, Config: t.config, Grants: t.grants, Memory: t.limits.Memory,
		StartTimeout: max(startWithin, t.limits.StartTimeout),
		Node:         &protov1.Node{Name: "plugin-test", DaemonVersion: "test"},
	}
}

// fresh replaces the process at hand by a new one.
func (t *tester) fresh(ctx context.Context) error {
	t.end()
	p, err := t.host.Probe(ctx, t.spec())
	if err != nil {
		return err
	}
	t.probe = p
	return nil
}

// alive makes sure that there is a process, configured when it is to be.
func (t *tester) alive(ctx context.Context, configured bool) error {
	died, _ := t.died(nil)
	if t.probe == nil || died || t.configured && !configured {
		if err := t.fresh(ctx); err != nil {
			return err
		}
	}
	if configured && !t.configured {
		if err := t.takeConfig(ctx); err != nil {
			return fmt.Errorf("configure: %w", err)
		}
	}
	return nil
}

func (t *tester) end() {
	if t.probe != nil {
		t.probe.Close()
	}
	t.probe, t.configured = nil, false
}

// died tells whether the process at hand has ended, and how. err is what a call to
// it failed with; nil: none did.
func (t *tester) died(err error) (bool, string) {
	if t.probe == nil {
		return false, ""
	}
	var wait time.Duration
	if err != nil { // the end of a connection comes before that of its process
		wait = 100 * time.Millisecond
	}
	select {
	case <-t.probe.Exited():
		return true, t.probe.Ended()
	default:
	}
	select {
	case <-t.probe.Exited():
		return true, t.probe.Ended()
	case <-time.After(wait):
		return false, ""
	}
}

// place checks where the plugin lies.
func (t *tester) place() {
	kind := string(t.entry.Manifest.Kind)
	t.check(context.Background(), "the daemon finds it by its place", "put program and manifest into a directory called "+kind+", and name the directory above it with plugins { dirs = [...] }",
		func(_ context.Context, c *check) {
			if dir := filepath.Base(t.entry.Dir); dir != kind {
				c.warnf("%s lies in a directory called %s; a %s is looked for as %s/%s.plugin.hcl", t.entry.File, dir, kind, kind, t.entry.Manifest.Name)
			}
		})
}

// configuration finds a configuration that the plugin should take.
func (t *tester) configuration() error {
	kind, name := t.entry.Manifest.Kind, t.entry.Manifest.Name
	source, text := "an empty block", fmt.Appendf(nil, "%s %q {}\n", kind, name)
	var file *config.File
	var found config.Diagnostics
	if t.opts.Config != "" {
		source = t.opts.Config
		file, found = config.ReadFile(t.opts.Config)
	} else {
		file, found = config.Parse("an-empty-block.hcl", text)
	}
	if found.HasErrors() {
		return refused(found)
	}
	configs, found := file.DecodePlugins(func(ref config.PluginRef) (schema.Block, error) {
		if ref.Kind != kind || ref.Name != name {
			return schema.Block{}, errOther
		}
		return t.schema, nil
	})
	for _, c := range configs {
		if c.Ref.Kind == kind && c.Ref.Name == name {
			t.config, t.grants, t.limits = c.JSON, c.Grants(), c.Ref.Host
			return nil
		}
	}
	var own config.Diagnostics
	for _, d := range found {
		if !strings.Contains(d.Detail, errOther.Error()) {
			own = append(own, d)
		}
	}
	switch {
	case len(own) == 0:
		return fmt.Errorf("%s names no %s %q: add a block of that name", source, kind, name)
	case t.opts.Config == "":
		return fmt.Errorf("it can't be tested with an empty block: name a configuration with --config FILE:\n%w", refused(own))
	}
	return refused(own)
}

// refused is what is wrong with a configuration, each mistake at its place.
func refused(found config.Diagnostics) error {
	var b strings.Builder
	if err := found.Write(&b, config.TextOptions{}); err != nil {
		return err
	}
	return errors.New(strings.TrimRight(b.String(), "\n"))
}

// errAny stands for the error of a call that a check has told of already.
var errAny = errors.New("a call failed")

// errOther marks the findings about plugins that are not tested.
var errOther = errors.New("it is not the plugin under test")

// heard takes the log of the host, and counts what the plugin printed.
type heard struct {
	mu     sync.Mutex
	stdout []string
}

var _ slog.Handler = (*heard)(nil)

func (h *heard) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (h *heard) WithAttrs([]slog.Attr) slog.Handler           { return h }
func (h *heard) WithGroup(string) slog.Handler                { return h }

func (h *heard) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "stream" && a.Value.String() == "stdout" {
			h.mu.Lock()
			defer h.mu.Unlock()
			const kept = 100
			if len(h.stdout) < kept {
				h.stdout = append(h.stdout, r.Message)
			}
		}
		return true
	})
	return nil
}

// printed is what came on standard output so far, the handshake apart.
func (h *heard) printed() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.stdout...)
}
