package sdktest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/contract"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// Patience is how long the harness waits for what must come to pass. It is long,
// since a test machine may be busy: a sound plugin never needs all of it.
const Patience = 30 * time.Second

// Options of Start. What is zero has the default named.
type Options struct {
	Node     *protov1.Node // one called "test"
	StateDir string        // a directory of the test's
	Features []string
	Log      *slog.Logger // to the test's log
}

// Plugin is a plugin that is served in memory. The goroutine of the test uses it.
type Plugin struct {
	t       testing.TB
	opts    Options
	conn    *grpc.ClientConn
	rpc     protov1.PluginClient
	kind    protov1.Kind
	schema  schema.Block
	ask     time.Duration
	cancel  context.CancelFunc
	served  chan error
	stopped bool
}

// Start serves k until the end of the test, at which it is asked to shut down. It
// fails the test when what the plugin says of itself breaks the contract.
func Start(t testing.TB, k plugin.Kind) *Plugin {
	t.Helper()
	return StartWith(t, k, Options{})
}

// StartWith is Start with options.
func StartWith(t testing.TB, k plugin.Kind, o Options) *Plugin {
	t.Helper()
	if o.Node == nil {
		o.Node = &protov1.Node{Name: "test"}
	}
	o.StateDir = cmp.Or(o.StateDir, t.TempDir())
	if o.Log == nil {
		w := &testLog{t: t}
		t.Cleanup(w.close)
		o.Log = slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	listener := bufconn.Listen(1 << 20)
	serving, cancel := context.WithCancel(context.Background())
	p := &Plugin{t: t, opts: o, cancel: cancel, served: make(chan error, 1)}
	go func() { p.served <- plugin.ServeListener(serving, listener, k, o.Log) }()
	t.Cleanup(p.Stop)
	var err error
	p.conn, err = grpc.NewClient("passthrough:///memory",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(wire.MaxMessage), grpc.MaxCallSendMsgSize(wire.MaxMessage), grpc.ForceCodecV2(wire.Codec()),
		))
	if err != nil {
		t.Fatalf("connect to the plugin: %v", err)
	}
	p.rpc = protov1.NewPluginClient(p.conn)
	ctx, done := p.deadline()
	defer done()
	d, err := p.rpc.Describe(ctx, &protov1.DescribeRequest{})
	if err != nil {
		t.Fatalf("describe the plugin: %v", err)
	}
	var wrong []string
	p.schema, wrong = contract.Description(d)
	p.kind = d.GetKind()
	p.broken(wrong)
	return p
}

// broken fails the test for what breaks the contract.
func (p *Plugin) broken(wrong []string) {
	p.t.Helper()
	for _, w := range wrong {
		p.t.Errorf("the plugin breaks the contract: %s", w)
	}
}

func (p *Plugin) deadline() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), Patience)
}

// Schema is how the plugin is configured.
func (p *Plugin) Schema() schema.Block { return p.schema }

// Conn is the connection to the plugin, for calls that the harness has no word for.
func (p *Plugin) Conn() grpc.ClientConnInterface { return p.conn }

// config is what the daemon would send for a configuration: an author's struct, a
// map, or JSON as text or bytes, in the units of the configuration; nil is empty.
func (p *Plugin) config(c any) []byte {
	p.t.Helper()
	var raw []byte
	switch c := c.(type) {
	case nil:
	case string:
		raw = []byte(c)
	case []byte:
		raw = c
	case json.RawMessage:
		raw = c
	default:
		var err error
		if raw, err = json.Marshal(c); err != nil {
			p.t.Fatalf("write the configuration as JSON: %v", err)
		}
	}
	filled, wrong := contract.Config(p.schema, raw)
	if len(wrong) > 0 {
		p.t.Fatalf("the daemon would refuse this configuration before the plugin hears of it: %s", strings.Join(wrong, "; "))
	}
	return filled
}

// Validate lets the plugin check a configuration, which must follow its schema:
// defaults are filled in. It fails the test when a finding has no place in the schema.
func (p *Plugin) Validate(config any) diag.Diagnostics {
	p.t.Helper()
	ctx, done := p.deadline()
	defer done()
	r, err := p.rpc.Validate(ctx, &protov1.ValidateRequest{Config: p.config(config)})
	if err != nil {
		p.t.Fatalf("validate: %v", err)
	}
	ds := wire.DiagnosticsFromProto(r.GetDiagnostics())
	p.broken(contract.Diagnostics(p.schema, ds))
	return ds
}

// Configure configures the plugin, and fails the test when it refuses.
func (p *Plugin) Configure(config any) {
	p.t.Helper()
	ds, err := p.TryConfigure(config)
	if err == nil {
		err = ds.Err()
	}
	if err != nil {
		p.t.Fatalf("configure: %v", err)
	}
}

// TryConfigure configures the plugin. Diagnostics of severity error refuse the
// configuration; an error is one of the call, such as that it is configured already.
func (p *Plugin) TryConfigure(config any) (diag.Diagnostics, error) {
	p.t.Helper()
	ctx, done := p.deadline()
	defer done()
	r, err := p.rpc.Configure(ctx, &protov1.ConfigureRequest{
		Config: p.config(config), Node: p.opts.Node, StateDir: p.opts.StateDir, Features: p.opts.Features,
	})
	if err != nil {
		return nil, err
	}
	ds := wire.DiagnosticsFromProto(r.GetDiagnostics())
	p.broken(contract.Diagnostics(p.schema, ds))
	p.ask = time.Duration(r.GetReportIntervalNano())
	return ds, nil
}

// Interval between two reports that a sampler asked for when it was configured; 0:
// the daemon's own.
func (p *Plugin) Interval() time.Duration { return p.ask }

// Health is how the plugin says it is.
func (p *Plugin) Health() *protov1.HealthResponse {
	p.t.Helper()
	ctx, done := p.deadline()
	defer done()
	h, err := p.rpc.Health(ctx, &protov1.HealthRequest{})
	if err != nil {
		p.t.Fatalf("ask for the plugin's health: %v", err)
	}
	return h
}

// AwaitDegraded waits until the plugin says that what it depends on does not answer,
// and returns its reason.
func (p *Plugin) AwaitDegraded() string {
	p.t.Helper()
	for until := time.Now().Add(Patience); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		if h := p.Health(); h.GetDegraded() {
			return h.GetReason()
		}
	}
	p.t.Fatal("the plugin never said that it is degraded: what it depends on is away, so call Degraded with a reason")
	return ""
}

// Stop asks the plugin to shut down and waits until it has. It fails the test when a
// method of the plugin does not return. The end of the test stops it too.
func (p *Plugin) Stop() {
	p.t.Helper()
	if p.stopped {
		return
	}
	p.stopped = true
	defer p.cancel()
	if p.rpc != nil {
		ctx, done := p.deadline()
		defer done()
		// An error means that it is going already.
		_, _ = p.rpc.Shutdown(ctx, &protov1.ShutdownRequest{})
	} else {
		p.cancel()
	}
	select {
	case err := <-p.served:
		if errors.Is(err, plugin.ErrStillRuns) {
			p.t.Errorf("the plugin breaks the contract: %v; return as soon as ctx is done", err)
		} else if err != nil {
			p.t.Errorf("end the plugin: %v", err)
		}
	case <-time.After(Patience):
		p.t.Error("the plugin does not end when asked to")
	}
	if p.conn != nil {
		if err := p.conn.Close(); err != nil {
			p.t.Errorf("close the connection to the plugin: %v", err)
		}
	}
}

// testLog writes to a test's log while the test runs.
type testLog struct {
	mu sync.Mutex
	t  testing.TB // nil: over
}

func (l *testLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.t != nil {
		l.t.Logf("%s", bytes.TrimRight(line, "\n"))
	}
	return len(line), nil
}

func (l *testLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t = nil
}
