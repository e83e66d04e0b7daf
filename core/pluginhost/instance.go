package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/sandbox"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/quiet"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// maxSocketPath is the longest path a unix socket can have; go-plugin's name for
// it is "plugin" and up to ten digits.
const maxSocketPath = 107 - len("/plugin0123456789")

// instance is one process of a plugin with a connection to it.
type instance struct {
	host   *Host
	entry  Entry
	run    *run
	proc   *process
	client *goplugin.Client
	conn   *grpc.ClientConn
	rpc    protov1.PluginClient
	dir    string
	rights sandbox.Rights
	bounds Confinement // by the control group
	state  string      // its state directory, as it sees it; "": none
	reach  reach
	opened *os.File // the program, when no bundle holds it

	interval time.Duration // between reports, as a sampler asked; 0: not
	hung     chan error    // a stream found that the plugin hangs; buffered

	told atomic.Uint64 // messages sent on the stream, or being sent

	mu       sync.Mutex
	taken    progress
	open     bool   // the kind's stream is
	broken   string // why it is not; "": it has not been tried yet
	degraded string // the last health answer
}

// Description is what a plugin says of itself.
type Description struct {
	Kind    config.PluginKind
	Name    string
	Version string
	Doc     string
	Schema  schema.Block
}

// launch starts a process and connects to it. timeout covers all of it. When it
// fails nothing is left running. Where a plugin can't have a root of its own, as in
// a container without the right to mount, it is started without.
func (h *Host) launch(ctx context.Context, s start, out *output, timeout time.Duration) (*instance, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it was not ready after %s", timeout))
	defer cancel()
	i, err := h.launchOnce(ctx, s, out, timeout)
	if again, err := h.without(err); !again {
		if err != nil {
			return nil, err
		}
		return i, nil
	}
	return h.launchOnce(ctx, s, out, timeout)
}

func (h *Host) launchOnce(ctx context.Context, s start, out *output, timeout time.Duration) (*instance, error) {
	i, err := h.newInstance(ctx, s, out)
	if err != nil {
		return nil, err
	}
	i.client = i.newClient(timeout + time.Second) // our timeout comes first
	connected := make(chan error, 1)
	go func() {
		connected <- i.connect()
	}()
	select {
	case err = <-connected:
	case <-ctx.Done():
		// go-plugin's start can't be cancelled, but it ends with the process.
		i.run.kill()
		<-connected
		err = context.Cause(ctx)
	}
	if err != nil {
		err = i.startError(err)
		i.end()
		return nil, err
	}
	sandboxed, ready := i.took()
	h.log.Debug("plugin has been started", "plugin", s.entry.String(), "pid", i.proc.pid(), "confined", sandboxed, "connected", ready)
	return i, nil
}

// took is how long the start took from the fork until the process was confined and had
// become the plugin, and until there was a connection, now.
func (i *instance) took() (confined, connected time.Duration) {
	return i.proc.became.Sub(i.proc.forked), time.Since(i.proc.forked)
}

// newInstance makes what a process of a plugin has on the host, and no process yet.
func (h *Host) newInstance(ctx context.Context, s start, out *output) (_ *instance, err error) {
	dir, err := os.MkdirTemp(h.dir, s.entry.Manifest.Name+".")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the plugin's socket: %w", err)
	}
	i := &instance{host: h, entry: s.entry, dir: dir, rights: s.rights, reach: reached(s.rights), hung: make(chan error, 1)}
	var group *cgroup
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir), group.remove(0), i.close())
		}
	}()
	if len(dir) > maxSocketPath {
		return nil, fmt.Errorf("the path %s is too long for a socket: choose a shorter runtime directory", dir)
	}
	if group, err = h.groups.make(filepath.Base(dir)); err != nil {
		return nil, err
	}
	file, err := i.program()
	if err != nil {
		return nil, err
	}
	plan, bounds, err := h.prepare(s, file, dir, group)
	if err != nil {
		return nil, err
	}
	i.bounds = bounds
	// A plugin works on small messages, one after the other. Goroutines on several
	// threads would wake one another for each, which costs half as much again, and
	// memory. What the manifest has passed on comes before, and counts.
	env := environment(s.env, wire.LogLevelKey+"="+h.logLevel(ctx), "GOMAXPROCS=1")
	if s.memory > 0 {
		// The Go runtime collects harder near its limit.
		env = append(env, fmt.Sprintf("GOMEMLIMIT=%d", s.memory-s.memory/10))
	}
	if err := h.give(plan, s.rights.State, dir); err != nil {
		return nil, err
	}
	i.run = &run{forker: h.forker, group: group, out: out, dir: dir, prog: program{file: file, plan: plan, env: env}}
	if i.state = s.rights.State; i.state != "" && plan.Confine {
		i.state = sandbox.StateDir
	}
	return i, nil
}

// program is the file to execute: what was hashed, if it was.
func (i *instance) program() (*os.File, error) {
	if b := i.entry.Bundle; b != nil {
		return b.Program, nil
	}
	f, err := os.Open(i.entry.Program)
	if err != nil {
		return nil, fmt.Errorf("open the program: %w", err)
	}
	i.opened = f
	return f, nil
}

// close closes what the instance has opened.
func (i *instance) close() error {
	if i.opened == nil {
		return nil
	}
	return i.opened.Close()
}

// newClient is go-plugin's side of an instance.
func (i *instance) newClient(timeout time.Duration) *goplugin.Client {
	r := i.run
	return goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion:  wire.ProtocolVersion,
			MagicCookieKey:   wire.CookieKey,
			MagicCookieValue: wire.CookieValue,
		},
		VersionedPlugins: wire.Versioned(goplugin.PluginSet{wire.Service: connection{}}),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		SkipHostEnv:      true,
		StartTimeout:     timeout,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: i.dir},
		SyncStdout:       io.Discard, // ours travel through the pipes
		SyncStderr:       io.Discard,
		Logger:           hclog.NewNullLogger(), // all it knows is in our errors
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, _ string) (runner.Runner, error) {
			return r.take(cmd), nil
		},
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithInitialWindowSize(wire.StreamWindow),
			grpc.WithInitialConnWindowSize(wire.ConnectionWindow),
			grpc.WithDefaultCallOptions(
				grpc.MaxCallRecvMsgSize(wire.MaxMessage),
				grpc.MaxCallSendMsgSize(wire.MaxMessage),
				grpc.ForceCodecV2(wire.Codec()),
			),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				conn, err := r.dial(ctx, r.address())
				if err != nil {
					return nil, err
				}
				return quiet.Conn(conn), nil
			}),
		},
	})
}

// connect takes go-plugin through the handshake.
func (i *instance) connect() error {
	if _, err := i.client.Start(); err != nil {
		return err
	}
	proto, err := i.client.Client()
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	conn, err := proto.Dispense(wire.Service)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	i.conn = conn.(*grpc.ClientConn)
	i.rpc = protov1.NewPluginClient(i.conn)
	i.proc = i.run.process()
	return nil
}

// startError says why a plugin did not start. Of a process that ended by itself its
// end says more than go-plugin does.
func (i *instance) startError(err error) error {
	if strings.HasPrefix(err.Error(), "Unrecognized remote plugin message") {
		err = errors.New("it closed its standard output without a handshake")
	}
	p := i.run.process()
	if p != nil {
		if v := int(p.protocol.Load()); v > 0 {
			if other := checkProtocol(v - 1); other != nil {
				return other
			}
		}
	}
	if refused := (*sandboxError)(nil); p == nil || errors.As(err, &refused) {
		return err
	}
	select {
	case <-p.exited:
		if p.killed() {
			return err // by us, because of err
		}
		return fmt.Errorf("%s before it was ready", p.ended)
	case <-time.After(lastWords / 2):
		return err
	}
}

// describe asks who the plugin is; raw is the answer as it came.
func (i *instance) describe(ctx context.Context) (d Description, raw *protov1.DescribeResponse, err error) {
	raw, err = i.rpc.Describe(ctx, &protov1.DescribeRequest{})
	if err != nil {
		return Description{}, nil, fmt.Errorf("describe: %w", i.rpcError(err))
	}
	d, err = described(i.entry, raw)
	return d, raw, err
}

// described reads who a plugin is, and holds it against its manifest.
func described(e Entry, r *protov1.DescribeResponse) (Description, error) {
	m := e.Manifest
	if r.GetKind() != wireKind(m.Kind) || r.GetName() != m.Name {
		return Description{}, fmt.Errorf("%s is %s %q, but its manifest says %s %q", e.Program, wire.KindName(r.GetKind()), r.GetName(), m.Kind, m.Name)
	}
	s, err := wire.SchemaFromProto(r.GetSchema())
	if err != nil {
		return Description{}, fmt.Errorf("read the schema of %s: %w", e, err)
	}
	return Description{Kind: m.Kind, Name: m.Name, Version: r.GetVersion(), Doc: r.GetDoc(), Schema: s}, nil
}

func (i *instance) validate(ctx context.Context, conf []byte) (diag.Diagnostics, error) {
	r, err := i.rpc.Validate(ctx, &protov1.ValidateRequest{Config: conf})
	if err != nil {
		return nil, fmt.Errorf("validate: %w", i.rpcError(err))
	}
	return wire.DiagnosticsFromProto(r.GetDiagnostics()), nil
}

// configure returns the report interval that a sampler asks for. A configuration
// that is refused is a *diag.Refusal.
func (i *instance) configure(ctx context.Context, s Spec) (time.Duration, error) {
	r, err := i.rpc.Configure(ctx, &protov1.ConfigureRequest{Config: s.Config, Node: s.Node, StateDir: i.state})
	if err != nil {
		return 0, fmt.Errorf("configure: %w", i.rpcError(err))
	}
	ds := wire.DiagnosticsFromProto(r.GetDiagnostics())
	if err := ds.Err(); err != nil {
		if s.Explain != nil {
			err = &explained{err, s.Explain(ds)}
		}
		return 0, err
	}
	for _, d := range ds {
		warning := d.Error()
		if s.Explain != nil {
			warning = s.Explain(diag.Diagnostics{d})
		}
		i.host.log.Warn("plugin warns of its configuration", "plugin", i.entry.String(), "warning", warning)
	}
	return time.Duration(r.GetReportIntervalNano()), nil
}

// explained is an error in other words.
type explained struct {
	err   error
	words string
}

func (e *explained) Error() string { return e.words }
func (e *explained) Unwrap() error { return e.err }

// rpcError puts the end of the process in the place of a broken connection.
func (i *instance) rpcError(err error) error {
	if status.Code(err) != codes.Unavailable {
		return rpcText(err)
	}
	select {
	case <-i.proc.exited:
		return errors.New(i.proc.ended)
	case <-time.After(time.Second): // its end comes right after the connection's, but on a busy host not at once
		return rpcText(err)
	}
}

// rpcText is an RPC's error without gRPC's own words around the plugin's.
func rpcText(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch s.Code() {
	case codes.DeadlineExceeded:
		return errors.New("it did not answer in time")
	case codes.Aborted, codes.Unknown:
		return errors.New(s.Message())
	}
	return fmt.Errorf("%s (%s)", s.Message(), s.Code())
}

// stop asks the process to end and ends it when it does not, within about patience
// and a second. A process that is frozen is not asked.
func (i *instance) stop(patience time.Duration, frozen bool) {
	if !frozen && i.proc.alive() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		// An error means that it is already going, or will be killed.
		if _, err := i.rpc.Shutdown(ctx, &protov1.ShutdownRequest{}); err == nil || status.Code(err) == codes.Unavailable {
			select {
			case <-i.proc.exited:
			case <-ctx.Done():
			}
		}
		cancel()
	}
	i.end()
}

// allWords is how long the end of a process waits for its last words, which come at
// once unless another process holds its pipes.
const allWords = 20 * time.Millisecond

// end kills what is left of the instance and cleans up after it. It returns once
// the process is gone, or after a second if the kernel can't end it; go-plugin's
// own cleaning goes on in the background, where Host.Stop waits for it.
func (i *instance) end() {
	i.run.kill()
	if p := i.run.process(); p != nil {
		select {
		case <-p.exited:
			select {
			case <-p.read:
			case <-time.After(allWords):
			}
		case <-time.After(time.Second):
			i.host.log.Error("plugin can't be killed: the kernel holds it", "plugin", i.entry.String(), "pid", p.pid())
		}
	}
	i.host.cleaning.Add(1)
	go func() {
		defer i.host.cleaning.Done()
		if p := i.run.process(); p != nil {
			<-p.read
			if i.client != nil { // nil: it was only tried
				i.client.Kill()
			}
		}
		err := errors.Join(os.RemoveAll(i.dir), i.run.group.remove(time.Second), i.close())
		if err != nil {
			i.host.log.Warn("could not clean up after a plugin", "plugin", i.entry.String(), "error", err)
		}
	}()
}

// connection is the host's side in go-plugin's terms: it dispenses the
// connection itself.
type connection struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (connection) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error {
	return errors.New("this is the host's side of the connection")
}

func (connection) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return c, nil
}
