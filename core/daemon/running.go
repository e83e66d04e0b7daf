package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// running is a plugin of this run: under supervision, with a place for what it
// tells. Its methods are for one goroutine at a time.
type running struct {
	plugin     // as it was started or last replaced
	supervised *pluginhost.Plugin
	cancel     context.CancelFunc // says that its end is wanted, and so no loss
	forget     func()             // takes out what it told
	turn       *turn              // of a sampler; else nil
}

// run starts a plugin's supervision. It ends with ctx, or with stop.
func (d *daemon) run(ctx context.Context, p plugin) (*running, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{plugin: p, cancel: cancel, forget: func() {}}
	log := d.log.With("plugin", p.config.Ref.String())
	var err error
	switch p.config.Ref.Kind {
	case config.Discoverer:
		err = d.runDiscoverer(ctx, r, log)
	case config.Mesh:
		err = d.runDetector(ctx, r, log)
	case config.Sampler:
		err = d.runSampler(ctx, r, log)
	default:
		err = fmt.Errorf("%s: there is no such kind of plugin", p.config.Ref)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return r, nil
}

// stop ends the plugin's process and takes out what it told.
func (r *running) stop() error {
	r.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), pluginsStop)
	defer cancel()
	err := r.supervised.Stop(ctx)
	r.forget()
	return err
}

func (d *daemon) spec(p plugin) pluginhost.Spec {
	return pluginhost.Spec{
		Entry: p.entry, Config: p.config.JSON, Explain: p.config.Explain, Grants: p.config.Grants(), Node: d.node(),
		Memory: p.config.Ref.Host.Memory, Processes: p.config.Ref.Host.Processes, StartTimeout: p.config.Ref.Host.StartTimeout,
	}
}

func (d *daemon) node() *protov1.Node {
	return &protov1.Node{
		Name: d.config.Node.Name, DaemonVersion: d.options.Version, CgroupRoot: d.root, HostRoot: d.config.Node.HostRoot,
	}
}

func (d *daemon) runDiscoverer(ctx context.Context, r *running, log *slog.Logger) error {
	name := r.config.Ref.Name
	// The observer may be called before the discoverer is there to be told; it
	// can't have subscribed by then.
	var discoverer atomic.Pointer[pluginhost.Discoverer]
	d.observe(ctx, inventory.Observer{Cgroup: func(f *protov1.HostFact, awaited bool) {
		if to := discoverer.Load(); to != nil {
			to.Tell(f, awaited)
		}
	}})
	run, err := d.host.RunDiscoverer(ctx, d.spec(r.plugin), pluginhost.DiscovererHandler{
		Changes: func(changes []*protov1.InventoryChange) {
			if err := d.inventory.Apply(name, changes); err != nil {
				log.Error("apply what a discoverer found", "error", err)
			}
		},
		Lost: func(reason string) {
			if ctx.Err() != nil {
				return // its end is wanted: nothing is stale
			}
			log.Warn("a discoverer is away; what it told stays, marked stale", "reason", reason)
			d.inventory.Away(name)
		},
		Facts: func(s *protov1.Subscribe) []*protov1.HostFact {
			if !s.GetCgroups() {
				return nil
			}
			if s.GetClaims() {
				d.inventory.Claims(name) // before the list, so that none is in neither
			}
			return d.inventory.Cgroups()
		},
	})
	if err != nil {
		return err
	}
	discoverer.Store(run)
	r.supervised, r.forget = run.Plugin, func() { d.inventory.Forget(name) }
	return nil
}

func (d *daemon) runDetector(ctx context.Context, r *running, log *slog.Logger) error {
	var detector atomic.Pointer[pluginhost.Detector]
	d.observe(ctx, inventory.Observer{Workload: func(c *protov1.InventoryChange) {
		if to := detector.Load(); to != nil {
			to.Tell(c)
		}
	}})
	mesh := d.inventory.Mesh(r.config.Ref.Name)
	run, err := d.host.RunDetector(ctx, d.spec(r.plugin), pluginhost.DetectorHandler{
		Changes: func(changes []*protov1.MeshChange) {
			if err := mesh.Apply(changes); err != nil {
				log.Error("apply what a detector found", "error", err)
			}
		},
		Lost: func(reason string) {
			if ctx.Err() != nil {
				return // its end is wanted: nothing is stale
			}
			log.Warn("a mesh detector is away; what it told stays", "reason", reason)
		},
		Workloads: d.inventory.Workloads,
	})
	if err != nil {
		return err
	}
	detector.Store(run)
	r.supervised, r.forget = run.Plugin, mesh.Forget
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

func (d *daemon) runSampler(ctx context.Context, r *running, log *slog.Logger) error {
	t := &turn{governor: d.governor, since: time.Now()}
	run, err := d.host.RunSampler(ctx, d.spec(r.plugin), pluginhost.SamplerHandler{
		Interval: func(asked time.Duration) time.Duration {
			if asked > 0 {
				return min(max(asked, minInterval), maxInterval)
			}
			return d.config.Load.Interval
		},
		Report: func(uint64) *protov1.Report { return t.report() },
		Answer: t.answer,
		Lost: func(reason string) {
			if ctx.Err() != nil {
				return // its end is wanted: nothing is stale
			}
			log.Warn("the sampler is away; its last policy goes on until its time is up", "reason", reason)
		},
	})
	if err != nil {
		return err
	}
	r.supervised, r.turn = run.Plugin, t
	return nil
}

// Bounds of the report interval that a sampler may ask for.
const (
	minInterval = 250 * time.Millisecond
	maxInterval = time.Minute
)
