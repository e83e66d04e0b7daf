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
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CtrNamespace is the containerd namespace that ctr works in.
const CtrNamespace = "default"

// startTimeout is how long a daemon may take until it answers. On a busy machine, much.
const startTimeout = 60 * time.Second

// CRINamespace is the containerd namespace of what is made through the CRI.
const CRINamespace = "k8s.io"

// Containerd is a containerd of its own, with [BusyboxImage] and [NoopImage] in the
// namespace [CtrNamespace]: the distribution's, or with [WithContainerd2] a newer one.
// Its methods may be called from several goroutines, but for those that start and end it.
type Containerd struct {
	Socket string

	state   *state
	options options
	server  *daemon
	runtime string // the runc to use
	bin     string // where its commands are; "": they are the distribution's
	cri     *CRI   // nil without [WithCRI]
	execs   atomic.Int64
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
	c := &Containerd{state: s, options: o}
	if err := c.setUp(ctx); err != nil {
		return nil, errors.Join(err, c.Close(ctx))
	}
	return c, nil
}

// setUp prepares what a containerd has that is not merely a dockerd's.
func (c *Containerd) setUp(ctx context.Context) (err error) {
	if c.options.containerd2 {
		if c.bin, err = containerd2().get(ctx, os.Stderr); err != nil {
			return err
		}
	}
	if c.options.bridge {
		if err := c.state.makeNetns(ctx); err != nil {
			return err
		}
	}
	if err := c.start(ctx); err != nil {
		return err
	}
	if c.options.cri {
		if err := c.state.writeCNI(c.options.bridge); err != nil {
			return err
		}
		if c.cri, err = newCRI(c.state, c.Socket); err != nil {
			return err
		}
	}
	return c.importImages(ctx)
}

// startContainerd starts one below a dockerd, in its environment.
func startContainerd(ctx context.Context, s *state) (*Containerd, error) {
	c := &Containerd{state: s}
	return c, c.start(ctx)
}

func (c *Containerd) start(ctx context.Context) (err error) {
	if c.Socket, err = c.state.socket(c.options.socket, "containerd.sock"); err != nil {
		return err
	}
	if c.runtime, err = c.state.runc(); err != nil {
		return err
	}
	config := c.config1()
	if c.bin != "" {
		config = c.config2()
	}
	if err := os.WriteFile(c.state.path("containerd.toml"), []byte(config), 0o644); err != nil {
		return fmt.Errorf("configure containerd: %w", err)
	}
	return c.Start(ctx)
}

// config1 is the configuration of a containerd of the first major version.
func (c *Containerd) config1() string {
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
`, c.state.path("containerd", "root"), c.state.path("containerd", "state"), c.Socket, c.state.path("containerd", "opt"))
	if !c.options.cri {
		return `disabled_plugins = ["io.containerd.grpc.v1.cri"]` + "\n" + config
	}
	return config + fmt.Sprintf(`[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = %q
      Root = %q
`, PauseImage, cniPlugins, c.state.cniDir(), c.runtime, c.runcRoot())
}

// config2 is the configuration of one of the second major version.
func (c *Containerd) config2() string {
	config := fmt.Sprintf(`version = 3
root = %q
state = %q
[plugins."io.containerd.server.v1.grpc"]
  address = %q
[plugins."io.containerd.server.v1.ttrpc"]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
[plugins."io.containerd.nri.v1.nri"]
  disable = true
`, c.state.path("containerd", "root"), c.state.path("containerd", "state"), c.Socket, c.Socket+".ttrpc",
		c.state.path("containerd", "opt"))
	if !c.options.cri {
		return `disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"]` + "\n" + config
	}
	return config + fmt.Sprintf(`[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = [%q]
    conf_dir = %q
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = %q
      Root = %q
`, PauseImage, cniPlugins, c.state.cniDir(), c.runtime, c.runcRoot())
}

// runcRoot is where runc keeps the state of the containers, in a directory for each
// namespace.
func (c *Containerd) runcRoot() string { return c.state.path("containerd", "runc") }

// command finds one of containerd's own commands.
func (c *Containerd) command(name string) (string, error) {
	if c.bin != "" {
		return filepath.Join(c.bin, name), nil
	}
	return command(name)
}

// environ is the environment of the daemon, which finds its shim by the PATH.
func (c *Containerd) environ() []string {
	environ := commandEnv()
	if c.bin != "" {
		environ = append(environ, "PATH="+strings.Join(append([]string{c.bin}, systemPath...), ":"))
	}
	return environ
}

// Start starts the daemon, again after Kill, and waits until it answers.
func (c *Containerd) Start(ctx context.Context) error {
	path, err := c.command("containerd")
	if err != nil {
		return err
	}
	argv := append([]string{path, "--config", c.state.path("containerd.toml")}, c.options.args...)
	if c.options.bridge {
		if argv, err = c.state.inNetns(argv); err != nil {
			return err
		}
	}
	c.server, err = c.state.start("containerd", argv, c.environ())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = poll(ctx, func() error {
		_, err := c.Ctr(ctx, "version")
		if err == nil && c.cri != nil { // which refuses all it is asked until it has recovered
			_, err = c.cri.Runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
		}
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
func (c *Containerd) Close(ctx context.Context) error {
	return errors.Join(c.cri.close(), c.state.clean(ctx))
}

// CRI is a client of its CRI, if it was started with [WithCRI]. What is made through it is
// in the namespace [CRINamespace].
func (c *Containerd) CRI() *CRI { return c.cri }

// Netns is the path of the network namespace of one with [WithBridge], as nsenter
// --net=PATH takes it.
func (c *Containerd) Netns() string { return c.state.netns() }

// Command prepares ctr, of the same version, for this daemon and [CtrNamespace].
func (c *Containerd) Command(ctx context.Context, args ...string) *exec.Cmd {
	return c.CommandIn(ctx, CtrNamespace, args...)
}

// CommandIn is Command in another namespace of containerd's.
func (c *Containerd) CommandIn(ctx context.Context, namespace string, args ...string) *exec.Cmd {
	path, err := c.command("ctr")
	cmd := exec.CommandContext(ctx, path, append([]string{"--address", c.Socket, "--namespace", namespace}, args...)...)
	cmd.Err = errors.Join(err, cmd.Err)
	cmd.Env = commandEnv()
	return cmd
}

// Ctr runs ctr and returns what it printed, without white space around.
func (c *Containerd) Ctr(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	return output(c.Command(ctx, args...))
}

// RunArgs are the arguments of ctr that run a container with this environment's
// runtime; what follows are further options, the image, the id, the command.
func (c *Containerd) RunArgs(args ...string) []string {
	return append([]string{"run",
		"--runc-binary", c.runtime,
		"--runc-root", c.runcRoot(),
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
		if c.cri == nil {
			continue
		}
		if _, err := output(c.CommandIn(ctx, CRINamespace, "image", "import", archive)); err != nil {
			return err
		}
	}
	if c.cri == nil {
		return nil
	}
	return c.cri.waitImages(ctx)
}

// stillRunning makes an error out of a daemon that is gone: to wait on is in vain.
func stillRunning(d *daemon, err error) error {
	if err != nil && !d.alive() {
		return fmt.Errorf("%s ended: %w", d.Name, err)
	}
	return err
}

// commandTimeout is how long a runtime's command line may take, on a busy machine: one
// that hangs is to fail its test by name, not the whole run by its length.
const commandTimeout = 2 * time.Minute

// limited bounds what a runtime's command line is run with.
func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, commandTimeout)
}

// output runs a command and returns its standard output, trimmed; an error holds what it
// wrote to the other.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second // what it started may hold its output open
	began := time.Now()
	if err := cmd.Run(); err != nil {
		if took := time.Since(began); took >= commandTimeout {
			err = fmt.Errorf("not done after %v: %w", took.Round(time.Second), err)
		}
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
