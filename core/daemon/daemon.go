// Package daemon is the one place where the graph is wired: it checks the
// configuration, builds every stage, starts them in order and stops them in the
// reverse.
//
// It owns the life of everything else and holds no logic of its own. Data flows
// one way (kernel, pipeline, exporters), control the other (plugins, inventory and
// governor, kernel).
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/api"
	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/exporter"
	"github.com/ebpf-tracer/ebpf-tracer/core/filter"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load"
	"github.com/ebpf-tracer/ebpf-tracer/core/namespace"
	"github.com/ebpf-tracer/ebpf-tracer/core/pipeline"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
	"github.com/ebpf-tracer/ebpf-tracer/core/share"
)

// Options of Run and Validate.
type Options struct {
	ConfigFile string
	Stdout     io.Writer // of an exporter with path "-"
	Stderr     io.Writer // the log
	Version    string
	Revision   string
	// PluginDir is searched before those of the configuration; "": "plugins"
	// beside the program.
	PluginDir string
	// StateDir holds what plugins keep; "": /var/lib/ebpf-tracer.
	StateDir string
}

const (
	pluginsStop   = 3 * time.Second // for plugins to end
	exportersStop = time.Second     // for exporters to write what is queued
)

// daemon is one run.
type daemon struct {
	options     Options
	config      config.Config // as it was at the start
	log         *slog.Logger
	logSettings *logSettings
	started     time.Time

	socket    *api.Listener
	host      *pluginhost.Host
	plugins   []plugin     // whose files are held; who holds reloading changes them
	current   []*running   // the same, as they run
	auto      *auto        // may add to both
	file      *config.File // as it was read at the start
	kernel    *kernel.Kernel
	inventory *inventory.Inventory
	pipeline  *pipeline.Pipeline
	governor  *load.Governor
	tally     *load.Tally
	filters   *filter.Table
	shares    *share.Table

	memoryLimit int64 // of the runtime, without a bound in the configuration
	labels      filter.Labels
	shedding    shed
	outputs     outputs
	live        *exporter.Live // one of them
	clock       *exporter.Clock
	servers     servers
	rescan      chan struct{}
	key         string // what attribution goes by
	root        string // of the default hierarchy; "": none

	namespaces *namespace.Namespaces
	usage      usages
	resources  resources

	working   context.Context // done: the run ends
	reloading chan struct{}   // holds one item while somebody reloads
	applied   config.Config   // with what reloads have changed since the start
	hangups   chan os.Signal  // each asks for a reload

	running sync.WaitGroup // the goroutines of this run
}

// Run traces until ctx is done, and then drains and returns nil. An error that is
// a *ConfigError says what is wrong with the configuration; nothing was started
// then.
func Run(ctx context.Context, o Options) error {
	// A reader of standard output that goes away is an error of the exporter,
	// not the end of the daemon.
	signal.Ignore(syscall.SIGPIPE)
	d := &daemon{
		options: o, started: time.Now(), rescan: make(chan struct{}, 1), clock: exporter.NewClock(clocks),
		reloading: make(chan struct{}, 1), hangups: make(chan os.Signal, 1), usage: unmeasured{},
	}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup asks for
		// From the start: by itself the signal would end the daemon.
		signal.Notify(d.hangups, syscall.SIGHUP)
		defer signal.Stop(d.hangups)
	}
	file, found := config.ReadFile(o.ConfigFile)
	if found.HasErrors() {
		// With what is wrong in the plugins' blocks too: all mistakes at once.
		if err := Validate(ctx, o); err != nil {
			return err
		}
		return configError(o.ConfigFile, found)
	}
	d.config, d.applied = file.Config, file.Config
	d.log, d.logSettings = newLog(o.Stderr, d.config.Log)
	if err := errors.Join(kernel.Check(), checkHostRoot(d.config.Node.HostRoot)); err != nil {
		return err
	}
	var err error
	if d.socket, err = api.Listen(d.config.API.Socket); err != nil {
		return err
	}
	if err = d.check(ctx, file, found); err == nil {
		err = d.trace(ctx)
	}
	return errors.Join(err, d.socket.Close())
}

// checkHostRoot makes sure that the host's root is where the configuration has it.
func checkHostRoot(root string) error {
	if root == "" {
		return nil
	}
	st, err := os.Stat(root)
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s is no directory", root)
	}
	if err != nil {
		return fmt.Errorf("node { host_root = %q }: %w: mount the host's root directory there, or leave it out", root, err)
	}
	return nil
}

// check finishes the check of the configuration with the plugins' help.
func (d *daemon) check(ctx context.Context, file *config.File, found config.Diagnostics) error {
	var err error
	d.host, err = pluginhost.New(pluginhost.Options{
		RuntimeDir: d.config.API.Socket + ".plugins", StateDir: d.options.stateDir(), Log: d.log,
		RequireSandbox: d.config.Plugins.Sandbox == config.Required, HostRoot: d.config.Node.HostRoot,
	})
	if err != nil {
		return err
	}
	d.file = file
	d.plugins, found, err = checkPlugins(ctx, d.host, d.options, file, found)
	if err == nil && found.HasErrors() {
		err = configError(d.options.ConfigFile, found)
	}
	if err == nil {
		err = showWarnings(d.options.Stderr, found)
	}
	if err != nil {
		return errors.Join(err, d.closePlugins())
	}
	return nil
}

func stopHost(h *pluginhost.Host) error {
	ctx, cancel := context.WithTimeout(context.Background(), pluginsStop)
	defer cancel()
	return h.Stop(ctx)
}

// trace builds and starts the stages, waits, and stops them.
func (d *daemon) trace(ctx context.Context) (err error) {
	d.inventory = inventory.New(inventory.Options{
		Encode: encodeWorkload, Rescan: d.wantRescan,
		Happened: func(h inventory.Happening) { d.pipeline.Happened(h) }, // no discoverer runs before the pipeline is there
	})
	if err := d.findNamespaces(); err != nil {
		return errors.Join(err, d.closePlugins())
	}
	if err := d.openOutputs(); err != nil {
		return errors.Join(err, d.closePlugins())
	}
	d.tally = load.NewTally()
	d.labels.Set(labelsOf(d.config.Priorities))
	d.pipeline = pipeline.New(pipeline.Options{
		Inventory: d.inventory, Exporters: append([]pipeline.Exporter{counter{d.tally, d.inventory}, &labeller{labels: &d.labels}}, d.outputs.pipeline()...), ByPID: d.namespaces.ByPID,
		Hold: d.config.Attribution.Hold, HoldCgroup: d.config.Attribution.HoldPerCgroup,
		HoldTotal: d.config.Attribution.HoldTotal,
		Unknown:   d.wantRescan, Monotonic: kernel.Monotonic, Wall: kernel.Wall,
		Wake: func() { d.kernel.Wake() }, // nothing is injected before the kernel is there
	})
	d.kernel, err = kernel.Load(kernel.Options{
		Probes: probes(d.config.Probes), RingBytes: int(d.config.Kernel.RingSize), Rings: d.config.Kernel.Rings,
		NoArgs:  d.config.Probes.Process != nil && !d.config.Probes.Process.Args,
		Prepare: d.prepare,
	})
	if err != nil {
		return errors.Join(err, d.closePlugins(), d.outputs.close())
	}
	for _, p := range d.kernel.Probes() {
		if p.State() != "attached" {
			d.log.Warn("this kernel can't take all of a probe; the rest runs", "probe", p.Name, "state", p.State(), "reason", p.Reason())
		}
	}
	d.scan()
	d.openResources()

	// Reading goes on while the rest is being stopped.
	reading, stopReading := context.WithCancel(context.Background())
	defer stopReading()
	read := make(chan error, 1)
	go func() { read <- d.kernel.Read(reading, d.pipeline) }()

	working, stopWorking := context.WithCancel(ctx)
	defer stopWorking()
	err = d.start(working)
	if err == nil {
		d.log.Info("tracing", "version", d.options.Version, "node", d.config.Node.Name,
			"socket", d.config.API.Socket, "start", time.Since(d.started).Round(time.Millisecond))
		select {
		case <-ctx.Done():
		case err = <-read:
			read <- nil
			err = fmt.Errorf("read the rings: %w", err)
		}
	}
	stopWorking()
	return errors.Join(err, d.stop(stopReading, read))
}

// prepare sets what holds for the first event.
func (d *daemon) prepare(k *kernel.Kernel) error {
	k.SetBudget(budgetOf(d.config.Budget))
	d.filters = filter.New(k, d.inventory, d.log)
	d.shares = share.New(k, d.inventory, d.log)
	return errors.Join(d.filters.Set(filter.Config, filterRules(d.config)), d.shares.Set(sharesOf(d.config.Shares)))
}

// start starts what serves the pipeline and those who ask about it.
func (d *daemon) start(ctx context.Context) error {
	d.working = ctx
	d.memoryLimit = debug.SetMemoryLimit(-1) // which only asks
	d.limitMemory(d.config.Budget)
	host := d.monitor()
	d.governor = load.New(load.Options{
		Kernel: d.kernel, Sampler: d.sampler(), Budget: budgetOf(d.config.Budget), Limits: limitsOf(d.config.Budget), Tally: d.tally,
		Queues: d.queues, Ring: d.kernel.RingFill, Monitor: host, Log: d.log,
		Filters: d.filterForSampler,
	})
	d.goes(func() { d.inventory.Run(ctx) })
	d.goes(func() { d.shares.Run(ctx) })
	d.goes(func() { d.filters.Run(ctx) })
	d.goes(func() { d.namespaces.Run(ctx) })
	d.goes(func() { d.governor.Run(ctx) })
	d.goes(func() { d.forgetCgroups(ctx) })
	if len(d.config.Load.Shed) > 0 {
		d.goes(func() { d.keepShedding(ctx, host) })
	}
	d.goes(func() { d.keepScanning(ctx) })
	d.runResources(ctx)
	if err := d.runPlugins(ctx); err != nil {
		return err
	}
	s := search{d}
	d.auto = newAuto(s, d.log)
	d.reloading <- struct{}{} // no reload is before what the file of the start looks for
	d.goes(func() {
		s.begin(ctx, d.file)
		<-d.reloading
		d.auto.run(ctx)
	})
	if err := d.serve(); err != nil {
		return err
	}
	d.goes(func() { d.obeyHangups(ctx) })
	return nil
}

// goes runs f on a goroutine of this run.
func (d *daemon) goes(f func()) {
	d.running.Add(1)
	go func() {
		defer d.running.Done()
		f()
	}()
}

// closePlugins ends the plugins and gives their files back.
func (d *daemon) closePlugins() error { return errors.Join(stopHost(d.host), closeBundles(d.plugins)) }

// stop ends everything in the order in which events flow, so that none is lost,
// and prints the ledger.
func (d *daemon) stop(stopReading func(), read <-chan error) error {
	errs := []error{d.kernel.Detach()}
	d.reloading <- struct{}{} // a reload under way ends with the run; none follows
	plugins := make(chan error, 1)
	go func() { plugins <- d.closePlugins() }()
	stopReading()
	errs = append(errs, <-read)
	d.pipeline.Close()
	errs = append(errs, d.outputs.close(), d.stopServing(), <-plugins)
	d.running.Wait()
	d.printLedger()
	errs = append(errs, d.resources.close(), d.kernel.Close())
	return errors.Join(errs...)
}

// scan tells the inventory of the cgroups that are there already.
func (d *daemon) scan() {
	root, err := inventory.Root()
	if err == nil {
		var n int
		if n, err = d.inventory.Scan(root); err == nil {
			d.log.Debug("cgroups listed", "root", root, "count", n)
			d.root, d.key = root, "default-hierarchy cgroup"
			return
		}
	}
	if errors.Is(err, inventory.ErrNoDefaultHierarchy) {
		d.inventory.RootAlone()
		d.key = "pid namespace: " + err.Error()
		d.log.Warn("events are attributed by their pid namespaces: those of containers that share one are the host's, and so are the first ones of each container", "reason", err)
		return
	}
	d.key = "none: " + err.Error()
	d.log.Warn("events can't be attributed to containers", "reason", err)
}

// wantRescan asks for another list of the cgroups. It never blocks.
func (d *daemon) wantRescan() {
	select {
	case d.rescan <- struct{}{}:
	default:
	}
}

// keepScanning lists the cgroups again when one was met that was never told, once
// a second at most.
func (d *daemon) keepScanning(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.rescan:
		}
		if d.root == "" {
			continue
		}
		if _, err := d.inventory.Scan(d.root); err != nil {
			d.log.Debug("list the cgroups again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

func probes(p config.Probes) (names []string) {
	if p.Process != nil {
		names = append(names, "process")
	}
	if p.Network != nil {
		names = append(names, "network")
	}
	if p.File != nil {
		names = append(names, "file")
	}
	return names
}

// clocks reads the wall clock and the events' clock at one time.
func clocks() (wall, mono int64) {
	before := kernel.Monotonic()
	wall = time.Now().UnixNano()
	return wall, int64(before+kernel.Monotonic()) / 2
}

// ConfigError is a configuration that is refused. Its text has every mistake at
// its place.
type ConfigError struct {
	File string
	Text string
}

func (e *ConfigError) Error() string { return e.Text }

func configError(file string, found config.Diagnostics) error {
	var b writer
	if err := found.Write(&b, config.TextOptions{Width: 100}); err != nil {
		return fmt.Errorf("%s is refused: %w", file, err)
	}
	return &ConfigError{File: file, Text: string(b)}
}

type writer []byte

func (w *writer) Write(b []byte) (int, error) { *w = append(*w, b...); return len(b), nil }

func showWarnings(w io.Writer, found config.Diagnostics) error {
	if len(found) == 0 {
		return nil
	}
	return found.Write(w, config.TextOptions{Width: 100})
}

// pluginDir is where the plugins that come with the program are.
func (o Options) pluginDir() (string, error) {
	if o.PluginDir != "" {
		return o.PluginDir, nil
	}
	program, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the program's own directory: %w", err)
	}
	if program, err = filepath.EvalSymlinks(program); err != nil {
		return "", fmt.Errorf("find the program's own directory: %w", err)
	}
	return filepath.Join(filepath.Dir(program), "plugins"), nil
}
