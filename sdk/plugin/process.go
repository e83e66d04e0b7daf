package plugin

import (
	"context"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/quiet"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// drain is how long the streams of a process get to end by themselves.
const drain = 500 * time.Millisecond

// process is a plugin that serves: it answers the Plugin service and holds what
// the kind's own service needs.
type process struct {
	protov1.UnimplementedPluginServer

	def    definition
	log    *slog.Logger
	std    *stdio
	ctx    context.Context // done when the process is to end
	cancel context.CancelFunc
	server *grpc.Server

	// messages of the kind's stream
	received, sent atomic.Uint64

	// configuring is held while the author's New runs, which mu is not: Health
	// answers meanwhile.
	configuring sync.Mutex

	mu         sync.Mutex
	configured bool
	late       bool // a stream did not end when asked to
	degraded   string

	// streams counts the running handlers of the kind's stream. closing keeps
	// new ones out once the end has begun.
	streams sync.WaitGroup
	closing bool
	endOnce sync.Once
}

var _ protov1.PluginServer = (*process)(nil)

func newProcess(def definition, log *slog.Logger, std *stdio) *process {
	p := &process{def: def, log: log, std: std}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// buffers are how many bytes of a connection are read, and written, at a time. Most
// messages are small, and what is larger goes past them.
const buffers = 8 << 10

// newServer is called by go-plugin, once.
func (p *process) newServer(opts []grpc.ServerOption) *grpc.Server {
	p.server = grpc.NewServer(append(opts,
		grpc.MaxRecvMsgSize(wire.MaxMessage),
		grpc.MaxSendMsgSize(wire.MaxMessage),
		grpc.Creds(quietly{insecure.NewCredentials()}),
		grpc.ReadBufferSize(buffers), grpc.WriteBufferSize(buffers),
		grpc.InitialWindowSize(wire.StreamWindow),
		grpc.InitialConnWindowSize(wire.ConnectionWindow),
		grpc.ForceServerCodecV2(wire.Codec()),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			p.std.release()
			return h(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			p.std.release()
			return h(srv, ss)
		}),
	)...)
	return p.server
}

// quietly is gRPC's way to no credentials, over connections that are quiet.
type quietly struct {
	credentials.TransportCredentials
}

func (q quietly) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return q.TransportCredentials.ServerHandshake(quiet.Conn(c))
}

func (p *process) register(r grpc.ServiceRegistrar) {
	protov1.RegisterPluginServer(r, p)
	p.def.register(r, p)
}

func (d definition) describe() (*protov1.DescribeResponse, error) {
	s, err := wire.SchemaToProto(d.schema)
	if err != nil {
		return nil, err
	}
	return &protov1.DescribeResponse{Kind: d.kind, Name: d.name, Version: d.version, Doc: d.doc, Schema: s}, nil
}

// Describe tells who the plugin is.
func (p *process) Describe(context.Context, *protov1.DescribeRequest) (*protov1.DescribeResponse, error) {
	d, err := p.def.describe()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return d, nil
}

// Validate checks a configuration without using it.
func (p *process) Validate(_ context.Context, r *protov1.ValidateRequest) (*protov1.ValidateResponse, error) {
	return &protov1.ValidateResponse{Diagnostics: wire.DiagnosticsToProto(p.def.validate(r.GetConfig()))}, nil
}

// Configure builds the author's plugin. A configuration that was refused may be
// followed by another; one that was taken may not.
func (p *process) Configure(_ context.Context, r *protov1.ConfigureRequest) (*protov1.ConfigureResponse, error) {
	p.configuring.Lock()
	defer p.configuring.Unlock()
	if p.isConfigured() {
		return nil, status.Error(codes.FailedPrecondition, "the plugin is configured already; start another process")
	}
	out := &protov1.ConfigureResponse{}
	ds := p.def.validate(r.GetConfig())
	if !ds.HasErrors() {
		env := Env{Node: r.GetNode(), StateDir: r.GetStateDir(), Features: r.GetFeatures(), Log: p.log}
		err := p.def.configure(p.ctx, r.GetConfig(), env)
		ds = append(ds, diagnostics(err)...)
		if err == nil {
			if p.def.interval != nil {
				out.ReportIntervalNano = int64(p.def.interval())
			}
			p.mu.Lock()
			p.configured = true
			p.mu.Unlock()
		}
	}
	out.Diagnostics = wire.DiagnosticsToProto(ds)
	return out, nil
}

func (p *process) isConfigured() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.configured
}

// Health answers from memory.
func (p *process) Health(context.Context, *protov1.HealthRequest) (*protov1.HealthResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &protov1.HealthResponse{
		Degraded: p.degraded != "", Reason: p.degraded,
		Received: p.received.Load(), Sent: p.sent.Load(),
	}, nil
}

// setDegraded is what Health answers from now on; "" is healthy.
func (p *process) setDegraded(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.degraded = reason
}

// Shutdown ends the streams; the process exits once they have ended.
func (p *process) Shutdown(context.Context, *protov1.ShutdownRequest) (*protov1.ShutdownResponse, error) {
	p.endOnce.Do(func() { go p.end() })
	return &protov1.ShutdownResponse{}, nil
}

// end waits for the streams, but not for long, and stops the server, which ends
// Serve and with it the process.
func (p *process) end() {
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
	p.cancel()
	ended := make(chan struct{})
	go func() {
		p.streams.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(drain):
		p.log.Warn("a stream did not end when asked to", "waited", drain)
		p.mu.Lock()
		p.late = true
		p.mu.Unlock()
	}
	p.server.Stop()
}

// orphaned ends a process whose daemon is gone: nobody is left to be told.
func (p *process) orphaned() {
	p.cancel()
	os.Exit(0)
}

// stream runs one handler of the kind's stream. Its context is done when the
// stream is cancelled or the process is to end. It refuses before Configure,
// and waits for its turn while an earlier stream is still ending.
func (p *process) stream(parent context.Context, turn slot, run func(context.Context) error) error {
	p.mu.Lock()
	if !p.configured || p.closing {
		p.mu.Unlock()
		if p.ctx.Err() != nil {
			return status.Error(codes.Unavailable, "the plugin is shutting down")
		}
		return status.Error(codes.FailedPrecondition, "the plugin is not configured yet")
	}
	p.streams.Add(1)
	p.mu.Unlock()
	defer p.streams.Done()

	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	if !turn.take(ctx) {
		return status.FromContextError(ctx.Err()).Err()
	}
	defer turn.give()
	err := run(ctx)
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	if err != nil {
		return status.Error(codes.Aborted, err.Error())
	}
	return nil
}

// counted is send with a count of what it sent.
func counted[M any](n *atomic.Uint64, send func(M) error) func(M) error {
	return func(m M) error {
		err := send(m)
		if err == nil {
			n.Add(1)
		}
		return err
	}
}

// received is recv with a count of what it received.
func received[M any](n *atomic.Uint64, recv func() (M, error)) func() (M, error) {
	return func() (M, error) {
		m, err := recv()
		if err == nil {
			n.Add(1)
		}
		return m, err
	}
}

// slot lets one stream run at a time.
type slot chan struct{}

func newSlot() slot { return make(slot, 1) }

func (s slot) take(ctx context.Context) bool {
	select {
	case s <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s slot) give() { <-s }
