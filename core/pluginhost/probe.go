package pluginhost

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Probe is a process of a plugin that is put to the test: it runs with the rights of
// one at work, but nobody supervises it, and every call of the contract may be made,
// in any order, well or ill formed. Its methods are safe for concurrent use.
type Probe struct {
	inst *instance
	out  *output
	spec Spec
}

// Probe starts a plugin to be tested. Close must follow.
func (h *Host) Probe(ctx context.Context, s Spec) (*Probe, error) {
	how, err := h.working(s)
	if err != nil {
		return nil, err
	}
	if err := h.use(); err != nil {
		return nil, err
	}
	timeout := h.pace.StartTimeout
	if s.StartTimeout > 0 {
		timeout = s.StartTimeout
	}
	out := &output{log: h.log.With("plugin", s.Entry.String())}
	i, err := h.launch(ctx, how, out, timeout)
	if err != nil {
		h.using.Done()
		return nil, withLastWords(fmt.Errorf("start plugin %s: %w", s.Entry, err), out)
	}
	return &Probe{inst: i, out: out, spec: s}, nil
}

// Conn is the connection over which the daemon would call the plugin.
func (p *Probe) Conn() grpc.ClientConnInterface { return p.inst.conn }

// Dial opens another connection to the plugin's socket, for bytes that are no gRPC.
func (p *Probe) Dial(ctx context.Context) (net.Conn, error) {
	return p.inst.run.dial(ctx, p.inst.run.address())
}

// Socket is the path at which the host finds the plugin's socket.
func (p *Probe) Socket() string { return p.inst.run.address() }

// Configuration is what the daemon would send for a configuration.
func (p *Probe) Configuration(config []byte) *protov1.ConfigureRequest {
	return &protov1.ConfigureRequest{Config: config, Node: p.spec.Node, StateDir: p.inst.state}
}

// PID of the process, in the host's view.
func (p *Probe) PID() int { return p.inst.proc.pid() }

// Exited is closed when the process has ended, and all that it started with it.
func (p *Probe) Exited() <-chan struct{} { return p.inst.proc.exited }

// Ended says how the process ended. It must have.
func (p *Probe) Ended() string { return p.inst.proc.ended }

// Orphan closes the host's end of the plugin's standard input, as the kernel does
// when the daemon is gone.
func (p *Probe) Orphan() error { return p.inst.proc.lifeline.Close() }

// Output are the last lines that the plugin wrote.
func (p *Probe) Output() []string { return p.out.last() }

// Close ends the process, by asking it first.
func (p *Probe) Close() {
	p.inst.stop(p.inst.host.pace.StopTimeout, false)
	p.inst.host.using.Done()
}
