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
	p := r.process()
	if p == nil {
		return nil, fmt.Errorf("connect to %s: it was not started", address)
	}
	socket, err := openSocket(address)
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", socket.Fd()))
	if err != nil {
		return nil, err
	}
	if err := p.listensOn(c.(*net.UnixConn)); err != nil {
		return nil, errors.Join(fmt.Errorf("check who listens on %s: %w", address, err), c.Close())
	}
	return c, nil
}

// openSocket opens a socket in a directory that is the plugin's. A link there could
// lead the daemon, which may do more, to the sockets of others.
func openSocket(path string) (*os.File, error) {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, filepath.Base(path), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// listensOn makes sure that it is this process at the other end of a connection.
func (p *process) listensOn(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	switch {
	case err != nil:
		return err
	case credErr != nil:
		return credErr
	case int(cred.Pid) != p.pid():
		return fmt.Errorf("process %d listens there, which is not the plugin's", cred.Pid)
	case p.reaped.Load():
		return errors.New("the plugin has ended, and its process id can be another's")
	}
	return nil
}
