package pluginhost

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/sandbox"
)

// run lets go-plugin start a process our way. Of go-plugin's life cycle it takes
// the handshake only: standard error is read by output, and the end is seen by
// process.
type run struct {
	forker *forker
	prog   program
	group  *cgroup
	out    *output
	dir    string // where its socket must be

	mu     sync.Mutex
	proc   *process
	socket string // as the plugin named it
	killed bool
}

var _ runner.Runner = (*run)(nil)

// take reads what go-plugin wants the plugin to know.
func (r *run) take(cmd *exec.Cmd) runner.Runner {
	for _, v := range cmd.Env {
		if !strings.HasPrefix(v, goplugin.EnvUnixSocketDir+"=") {
			r.prog.env = append(r.prog.env, v)
		}
	}
	// Its own directory is deeper down, and socket paths are short.
	socket, temp := r.dir, r.dir
	if r.prog.plan.Confine {
		socket, temp = sandbox.SocketDir, sandbox.TempDir
	}
	r.prog.env = append(r.prog.env, goplugin.EnvUnixSocketDir+"="+socket, "TMPDIR="+temp)
	return r
}

// Start returns when the process has become the plugin.
func (r *run) Start(context.Context) error {
	p, err := r.spawn()
	if err != nil {
		return fmt.Errorf("run %s: %w", r.prog.plan.Path, err)
	}
	<-p.confined // or ended, or was killed
	return p.refused
}

func (r *run) spawn() (*process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.killed {
		return nil, errStopped
	}
	p, err := spawn(r.forker, r.prog, r.group, r.out)
	r.proc = p
	return p, err
}

// process is nil when it was not started.
func (r *run) process() *process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proc
}

// kill ends the process, or keeps it from being started.
func (r *run) kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.killed = true
	if r.proc != nil {
		r.proc.kill()
	}
}

func (r *run) Kill(context.Context) error {
	r.kill()
	return nil
}

func (r *run) Wait(context.Context) error {
	if p := r.process(); p != nil {
		<-p.exited
	}
	return nil
}

func (r *run) Stdout() io.ReadCloser { return r.process().handshake }

// Stderr is empty: go-plugin would not see a process end before its standard
// error does, and stops reading at a line that is too long.
func (r *run) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

func (r *run) Name() string                    { return r.prog.plan.Path }
func (r *run) Diagnose(context.Context) string { return "" }

func (r *run) ID() string {
	if p := r.process(); p != nil {
		return strconv.Itoa(p.pid())
	}
	return ""
}

// PluginToHost judges the address that the plugin named in its handshake. The
// socket of a plugin that has a root of its own is reached through its process.
func (r *run) PluginToHost(network, address string) (string, string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	dir := r.dir
	if r.prog.plan.Confine {
		dir = sandbox.SocketDir
	}
	if network != "unix" || filepath.Dir(address) != dir {
		return "", "", fmt.Errorf("it listens on %s %q: only a unix socket in %s is taken", network, address, dir)
	}
	r.socket = address
	if r.prog.plan.Confine {
		r.socket = fmt.Sprintf("/proc/%d/root%s", r.proc.pid(), address)
	}
	return network, r.socket, nil
}

// address is the plugin's socket, once the handshake named it.
func (r *run) address() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.socket
}

func (r *run) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// dial connects to the plugin's socket and makes sure that it is the plugin's:
// the one who listens must be the process that was started.
func (r *run) dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", address)
	if err != nil {
		return nil, err
	}
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		c.Close()
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = credErr
	}
	if p := r.process(); err == nil && (p == nil || int(cred.Pid) != p.pid()) {
		err = fmt.Errorf("process %d listens there, which is not the plugin's", cred.Pid)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("check who listens on %s: %w", address, err)
	}
	return c, nil
}
