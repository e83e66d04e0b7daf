package env

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// CtrNamespace is the containerd namespace that ctr works in.
const CtrNamespace = "default"

// startTimeout is how long a daemon may take until it answers. On a busy machine, much.
const startTimeout = 60 * time.Second

// Containerd is a containerd of its own, with [BusyboxImage] and [NoopImage] in the
// namespace [CtrNamespace]. Its methods may be called from several goroutines, but for
// those that start and end it.
type Containerd struct {
	Socket string

	state   *state
	server  *daemon
	runtime string // the runc to use
	args    []string
}

// StartContainerd starts a containerd and takes it off the machine when the test ends.
func StartContainerd(t testing.TB, opts ...Option) *Containerd {
	t.Helper()
	c, err := NewContainerd(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeWithTest(t, c.Close) })
	return c
}

// NewContainerd starts a containerd, whose owner has to call Close.
func NewContainerd(ctx context.Context, opts ...Option) (*Containerd, error) {
	o := collect(opts)
	s, err := newState(ctx, o.name)
	if err != nil {
		return nil, err
	}
	c, err := startContainerd(ctx, s, o)
	if err == nil {
		err = c.importImages(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.clean(ctx))
	}
	return c, nil
}

// startContainerd starts one inside an environment: by itself, or below a dockerd.
func startContainerd(ctx context.Context, s *state, o options) (*Containerd, error) {
	socket, err := s.socket(o.socket, "containerd.sock")
	if err != nil {
		return nil, err
	}
	c := &Containerd{Socket: socket, state: s, args: o.args}
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
`, s.path("containerd", "root"), s.path("containerd", "state"), c.Socket, s.path("containerd", "opt"))
	if err := os.WriteFile(s.path("containerd.toml"), []byte(config), 0o644); err != nil {
		return nil, fmt.Errorf("configure containerd: %w", err)
	}
	if c.runtime, err = s.runc(); err != nil {
		return nil, err
	}
	return c, c.Start(ctx)
}

// Start starts the daemon, again after Kill, and waits until it answers.
func (c *Containerd) Start(ctx context.Context) error {
	path, err := command("containerd")
	if err != nil {
		return err
	}
	argv := append([]string{path, "--config", c.state.path("containerd.toml")}, c.args...)
	c.server, err = c.state.start("containerd", argv, commandEnv())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = poll(ctx, func() error {
		_, err := c.Ctr(ctx, "version")
		return stillRunning(c.server, err)
	})
	if err != nil {
		return fmt.Errorf("wait for containerd: %w; its log:\n%s", err, c.state.log("containerd"))
	}
	return nil
}

// Kill ends the daemon by SIGKILL, as a crash would. Its containers go on.
func (c *Containerd) Kill(ctx context.Context) error { return c.server.kill(ctx) }

// Pause stops the daemon in its tracks (SIGSTOP) until Resume.
func (c *Containerd) Pause() error { return c.server.signal(unix.SIGSTOP) }

// Resume lets the daemon go on after Pause.
func (c *Containerd) Resume() error { return c.server.signal(unix.SIGCONT) }

// PID is the daemon's process id.
func (c *Containerd) PID() int { return c.server.PID }

// Close ends the containers and the daemon and takes all they left off the machine.
func (c *Containerd) Close(ctx context.Context) error { return c.state.clean(ctx) }

// Command prepares ctr, of the distribution's package, for this daemon.
func (c *Containerd) Command(ctx context.Context, args ...string) *exec.Cmd {
	path, err := command("ctr")
	cmd := exec.CommandContext(ctx, path, append([]string{"--address", c.Socket, "--namespace", CtrNamespace}, args...)...)
	cmd.Err = errors.Join(err, cmd.Err)
	cmd.Env = commandEnv()
	return cmd
}

// Ctr runs ctr and returns what it printed, without white space around.
func (c *Containerd) Ctr(ctx context.Context, args ...string) (string, error) {
	return output(c.Command(ctx, args...))
}

// RunArgs are the arguments of ctr that run a container with this environment's
// runtime; what follows are further options, the image, the id, the command.
func (c *Containerd) RunArgs(args ...string) []string {
	return append([]string{"run",
		"--runc-binary", c.runtime,
		"--runc-root", c.state.path("containerd", "runc"),
		"--fifo-dir", c.state.path("containerd", "fifo"),
	}, args...)
}

// Run runs a container, given options, image, id and command as ctr run takes them, and
// returns what was printed. The test fails if ctr does. The container's cgroup is
// /default/ID, whichever containerd runs it: of two that may run at the same time the ids
// have to differ.
func (c *Containerd) Run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.Ctr(t.Context(), c.RunArgs(args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (c *Containerd) importImages(ctx context.Context) error {
	archives, err := c.state.images()
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if _, err := c.Ctr(ctx, "image", "import", archive); err != nil {
			return err
		}
	}
	return nil
}

// stillRunning makes an error out of a daemon that is gone: to wait on is in vain.
func stillRunning(d *daemon, err error) error {
	if err != nil && !d.alive() {
		return fmt.Errorf("%s ended: %w", d.Name, err)
	}
	return err
}

// output runs a command and returns its standard output, trimmed; an error holds what it
// wrote to the other.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(cmd.Path), strings.Join(cmd.Args[1:], " "), err,
			strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// closeWithTest calls close after the test's own context has ended.
func closeWithTest(t testing.TB, close func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	if err := close(ctx); err != nil {
		t.Error(err)
	}
}
