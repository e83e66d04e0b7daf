package env

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Podman is a Podman whose containers, images and settings are its own, with
// [BusyboxImage] and [NoopImage] in it, and its service, which speaks Docker's API at
// Socket. Podman's containers don't need the service: the command works without.
//
// Its methods may be called from several goroutines, but for those that start and end
// the service.
type Podman struct {
	Socket string

	state   *state
	options options
	server  *daemon
}

// StartPodman starts a Podman's service and takes it off the machine when the test ends.
func StartPodman(t testing.TB, opts ...Option) *Podman {
	t.Helper()
	p, err := NewPodman(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeWithTest(t, p.Close) })
	return p
}

// NewPodman starts a Podman's service, whose owner has to call Close.
func NewPodman(ctx context.Context, opts ...Option) (*Podman, error) {
	p := &Podman{options: collect(opts)}
	var err error
	if p.state, err = newState(ctx, p.options.name); err != nil {
		return nil, err
	}
	if err := p.setUp(ctx); err != nil {
		return nil, errors.Join(err, p.state.clean(ctx))
	}
	return p, nil
}

func (p *Podman) setUp(ctx context.Context) (err error) {
	if p.Socket, err = p.state.socket(p.options.socket, "podman.sock"); err != nil {
		return err
	}
	if p.options.bridge {
		if err := p.state.makeNetns(ctx); err != nil {
			return err
		}
	}
	if err := p.configure(); err != nil {
		return err
	}
	archives, err := p.state.images()
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if _, err := p.CLI(ctx, "load", "--quiet", "--input", archive); err != nil {
			return err
		}
	}
	return p.Start(ctx)
}

func (p *Podman) path(elem ...string) string {
	return p.state.path(append([]string{"podman"}, elem...)...)
}

// configure writes all that Podman reads, so that it reads nothing of the machine's.
//
// The soft and the hard limits are the same since this Podman takes one for the other in
// containers that are made by its API. What is locked is a file, not a piece of shared
// memory that all Podmans of the machine would have in common. The run root's path has
// to be short, or Podman refuses it where it ends a container: run --rm then takes 20 s.
func (p *Podman) configure() error {
	runtime, err := p.state.runc()
	if err != nil {
		return err
	}
	conmon, err := command("conmon")
	if err != nil {
		return err
	}
	network := "none"
	if p.options.bridge {
		network = "bridge"
	}
	containers := fmt.Sprintf(`[containers]
netns = %q
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
log_driver = "k8s-file"
[network]
network_backend = "cni"
network_config_dir = %q
cni_plugin_dirs = [%q]
default_network = %q
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
events_logfile_path = %q
lock_type = "file"
static_dir = %q
tmp_dir = %q
volume_path = %q
conmon_path = [%q]
runtime = "test"
[engine.runtimes]
test = [%q]
`, network, p.path("networks"), cniPlugins, p.state.cniNetwork(), p.path("events"), p.path("root", "libpod"), p.path("tmp"), p.path("root", "volumes"),
		conmon, runtime)
	storage := fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", p.path("root"), p.state.path("run"))
	for _, dir := range []string{p.path(), p.path("networks")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("configure podman: %w", err)
		}
	}
	for name, text := range map[string]string{
		"containers.conf": containers,
		"storage.conf":    storage,
		"registries.conf": "unqualified-search-registries = []\n",
	} {
		if err := os.WriteFile(p.path(name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("configure podman: %w", err)
		}
	}
	return nil
}

func (p *Podman) environ() []string {
	return commandEnv(
		"CONTAINERS_CONF="+p.path("containers.conf"),
		"CONTAINERS_STORAGE_CONF="+p.path("storage.conf"),
		"CONTAINERS_REGISTRIES_CONF="+p.path("registries.conf"),
	)
}

// argv is the command line of a podman command.
func (p *Podman) argv(args ...string) ([]string, error) {
	path, err := command("podman")
	if err != nil {
		return nil, err
	}
	argv := append([]string{path}, args...)
	if p.options.bridge {
		return p.state.inNetns(argv)
	}
	return argv, nil
}

// Start starts the service, again after Kill, and waits until it answers.
func (p *Podman) Start(ctx context.Context) error {
	// one that was killed leaves its socket
	if err := removeFiles([]string{p.Socket}); err != nil {
		return fmt.Errorf("start podman: %w", err)
	}
	argv, err := p.argv(append([]string{"system", "service", "--time", "0", "unix://" + p.Socket}, p.options.args...)...)
	if err != nil {
		return err
	}
	if p.server, err = p.state.start("podman", argv, p.environ()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = poll(ctx, func() error { return stillRunning(p.server, ping(ctx, p.Socket)) })
	if err != nil {
		return fmt.Errorf("wait for podman's service: %w; its log:\n%s", err, p.state.log("podman"))
	}
	return nil
}

// ping asks whether a server of Docker's API answers.
func ping(ctx context.Context, socket string) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/_ping", nil)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s whether it answers: %s", socket, answer.Status)
	}
	return nil
}

// Kill ends the service by SIGKILL, as a crash would. The containers go on.
func (p *Podman) Kill(ctx context.Context) error { return p.server.kill(ctx) }

// Pause stops the service in its tracks (SIGSTOP) until Resume. The command still works.
func (p *Podman) Pause() error { return p.server.signal(syscall.SIGSTOP) }

// Resume lets the service go on after Pause.
func (p *Podman) Resume() error { return p.server.signal(syscall.SIGCONT) }

// PID is the service's process id.
func (p *Podman) PID() int { return p.server.PID }

// Netns is the path of the network namespace of one with [WithBridge], as nsenter
// --net=PATH takes it.
func (p *Podman) Netns() string { return p.state.netns() }

// Root is the directory of its images and containers.
func (p *Podman) Root() string { return p.path("root") }

// Command prepares the podman command, of the distribution's package, for the containers
// of this environment.
func (p *Podman) Command(ctx context.Context, args ...string) *exec.Cmd {
	argv, err := p.argv(args...)
	if err != nil {
		argv = []string{"podman"}
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Err = errors.Join(err, cmd.Err)
	cmd.Env = p.environ()
	return cmd
}

// CLI runs the podman command and returns what it printed, without white space around.
func (p *Podman) CLI(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	return output(p.Command(ctx, args...))
}

// Run is podman run: it returns what was printed, with --detach the container's id. The
// test fails if the command does.
func (p *Podman) Run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := p.CLI(t.Context(), append([]string{"run"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// Close ends the containers and the service and takes all they left off the machine.
func (p *Podman) Close(ctx context.Context) error { return p.state.clean(ctx) }
