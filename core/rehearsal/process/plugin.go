package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// The daemon's patience and pace.
const (
	askWithin    = 10 * time.Second // Configure
	answerWithin = 10 * time.Second
	stopWithin   = 10 * time.Second
	minInterval  = 250 * time.Millisecond
	maxInterval  = time.Minute
)

// Options of Open.
type Options struct {
	// File is the sampler's program, with its manifest beside it, or its manifest.
	File string
	// Config is a configuration file that names the sampler; "": its block is empty.
	Config string
	// Patience is how long an answer may take, in real time; 0: 10 s, the daemon's.
	Patience time.Duration
	Log      *slog.Logger // nil: nothing is logged
}

// Plugin is a sampler that processes of can be started, one after the other or at
// once. Close ends it. It is safe for concurrent use.
type Plugin struct {
	entry    pluginhost.Entry
	host     *pluginhost.Host
	block    *block
	patience time.Duration
	state    string // directory
}

// Open finds a sampler and checks its configuration, for which the sampler runs a
// first time, with no rights. The error says what is wrong and where.
func Open(ctx context.Context, o Options) (_ *Plugin, err error) {
	catalog, err := pluginhost.NewCatalog(nil)
	if err != nil {
		return nil, err
	}
	p := &Plugin{patience: cmp.Or(o.Patience, answerWithin)}
	if p.entry, err = catalog.At(o.File); err != nil {
		return nil, err
	}
	if k := p.entry.Manifest.Kind; k != config.Sampler {
		return nil, fmt.Errorf("%s is a %s: only samplers are rehearsed", p.entry, k)
	}
	if p.state, err = os.MkdirTemp("", "ebpf-tracer-rehearsal-"); err != nil {
		return nil, fmt.Errorf("make a state directory for the plugin: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if p.host, err = pluginhost.New(pluginhost.Options{StateDir: p.state, Log: log}); err != nil {
		return nil, err
	}
	session, err := p.host.Open(ctx, p.entry)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	said, err := session.Describe(ctx)
	if err != nil {
		return nil, err
	}
	p.block, err = readBlock(o.Config, p.entry.Manifest.Name, said.Schema)
	return p, err
}

// Name of the sampler.
func (p *Plugin) Name() string { return p.entry.Manifest.Name }

// Close frees what Open made. Samplers must have been closed.
func (p *Plugin) Close() error {
	var err error
	if p.host != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
		defer cancel()
		err = p.host.Stop(ctx)
	}
	return errors.Join(err, os.RemoveAll(p.state))
}

// Start starts a process, configures it and opens its stream. Close must follow. When
// ctx is done the sampler answers no more, and Ask says why.
func (p *Plugin) Start(ctx context.Context) (*Sampler, error) {
	probe, err := p.host.Probe(ctx, pluginhost.Spec{
		Entry: p.entry, Config: p.block.json, Grants: p.block.grants,
		Memory: p.block.limits.Memory, Processes: p.block.limits.Processes, StartTimeout: p.block.limits.StartTimeout,
		Node: &protov1.Node{Name: "rehearsal", DaemonVersion: "rehearsal"},
	})
	if err != nil {
		return nil, err
	}
	asked, err := p.configure(ctx, probe)
	if err != nil {
		probe.Close()
		return nil, fmt.Errorf("configure plugin %s: %w", p.entry, err)
	}
	interval := p.block.interval
	if asked > 0 {
		interval = min(max(asked, minInterval), maxInterval)
	}
	s := &Sampler{probe: probe, interval: interval, ended: ending(probe)}
	if s.stream, err = open(ctx, probe.Conn(), p.patience); err != nil {
		probe.Close()
		return nil, fmt.Errorf("open the stream of plugin %s: %w", p.entry, err)
	}
	return s, nil
}

// configure gives the interval that the sampler asks for; 0: none.
func (p *Plugin) configure(ctx context.Context, probe *pluginhost.Probe) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	r, err := protov1.NewPluginClient(probe.Conn()).Configure(ctx, probe.Configuration(p.block.json))
	if err != nil {
		return 0, err
	}
	return time.Duration(r.GetReportIntervalNano()), wire.DiagnosticsFromProto(r.GetDiagnostics()).Err()
}

// ending tells how a process has ended, and waits for it a moment: the end of the
// connection comes first. "": it has not.
func ending(probe *pluginhost.Probe) func() string {
	const moment = time.Second
	return func() string {
		select {
		case <-probe.Exited():
			return probe.Ended()
		case <-time.After(moment):
			return ""
		}
	}
}
