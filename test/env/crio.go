package env

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CRIO is a CRI-O of its own, with [BusyboxImage], [NoopImage] and [PauseImage] in it. It
// is built from its published Go module where that was not done before, which takes
// minutes. Its methods may be called from several goroutines, but for those that start
// and end the daemon.
type CRIO struct {
	Socket string

	state   *state
	options options
	bin     string // where its commands are
	server  *daemon
	cri     *CRI
}

// StartCRIO starts a CRI-O and takes it off the machine when the test ends.
func StartCRIO(t testing.TB, opts ...Option) *CRIO {
	t.Helper()
	c, err := NewCRIO(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeWithTest(t, c.Close) })
	return c
}

// NewCRIO starts a CRI-O, whose owner has to call Close.
func NewCRIO(ctx context.Context, opts ...Option) (*CRIO, error) {
	c := &CRIO{options: collect(opts)}
	var err error
	if c.state, err = newState(ctx, c.options.name); err != nil {
		return nil, err
	}
	if err := c.setUp(ctx); err != nil {
		return nil, errors.Join(err, c.Close(ctx))
	}
	return c, nil
}

func (c *CRIO) setUp(ctx context.Context) (err error) {
	if c.bin, err = crio().get(ctx, os.Stderr); err != nil {
		return err
	}
	if c.Socket, err = c.state.socket(c.options.socket, "crio.sock"); err != nil {
		return err
	}
	if c.options.bridge {
		if err := c.state.makeNetns(ctx); err != nil {
			return err
		}
	}
	if err := c.state.writeCNI(c.options.bridge); err != nil {
		return err
	}
	if err := c.configure(); err != nil {
		return err
	}
	if err := c.importImages(ctx); err != nil {
		return err
	}
	if c.cri, err = newCRI(c.state, c.Socket); err != nil {
		return err
	}
	if err := c.Start(ctx); err != nil {
		return err
	}
	return c.cri.waitImages(ctx)
}

func (c *CRIO) path(elem ...string) string {
	return c.state.path(append([]string{"crio"}, elem...)...)
}

// configure writes all that CRI-O reads, so that it reads nothing of the machine's.
func (c *CRIO) configure() error {
	runtime, err := c.state.runc()
	if err != nil {
		return err
	}
	conmon, err := command("conmon")
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`[crio]
root = %q
runroot = %q
log_dir = %q
version_file = %q
version_file_persist = %q
clean_shutdown_file = %q
internal_wipe = false
storage_driver = "overlay"
[crio.api]
listen = %q
[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
default_runtime = "runc"
pinns_path = %q
namespaces_dir = %q
container_exits_dir = %q
container_attach_socket_dir = %q
irqbalance_config_restore_file = "disable"
hooks_dir = []
cdi_spec_dirs = []
enable_pod_events = true
disable_hostport_mapping = %v
[crio.runtime.runtimes.runc]
runtime_path = %q
runtime_type = "oci"
runtime_root = %q
monitor_path = %q
monitor_cgroup = "pod"
[crio.image]
pause_image = %q
pause_command = ""
signature_policy = %q
[crio.network]
network_dir = %q
plugin_dirs = [%q]
[crio.nri]
enable_nri = false
`, c.path("root"), c.path("runroot"), c.path("logs"), c.path("version"), c.path("version-persist"), c.path("clean.shutdown"),
		c.Socket, filepath.Join(c.bin, "pinns"), c.path("ns"), c.path("exits"), c.path("attach"),
		!c.options.bridge, // without a network of its own it has no packet rules to make
		runtime, c.path("runc"), conmon, PauseImage, c.path("policy.json"), c.state.cniDir(), cniPlugins)
	for name, text := range map[string]string{
		"crio.conf":       config,
		"policy.json":     `{"default": [{"type": "insecureAcceptAnything"}]}`,
		"registries.conf": "unqualified-search-registries = []\n",
		"storage.conf":    fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", c.path("root"), c.path("runroot")),
	} {
		if err := os.MkdirAll(c.path("conf.d"), 0o755); err != nil {
			return fmt.Errorf("configure CRI-O: %w", err)
		}
		if err := os.WriteFile(c.path(name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("configure CRI-O: %w", err)
		}
	}
	return nil
}

func (c *CRIO) environ() []string {
	return commandEnv("CONTAINERS_STORAGE_CONF="+c.path("storage.conf"), "CONTAINERS_REGISTRIES_CONF="+c.path("registries.conf"))
}

// importImages puts the images into CRI-O's store: it has no command for that.
func (c *CRIO) importImages(ctx context.Context) error {
	archives, err := c.state.images()
	if err != nil {
		return err
	}
	skopeo, err := command("skopeo")
	if err != nil {
		return err
	}
	for i, ref := range []string{BusyboxImage, NoopImage, PauseImage} { // as images has them
		store := fmt.Sprintf("containers-storage:[overlay@%s+%s]%s", c.path("root"), c.path("runroot"), ref)
		cmd := exec.CommandContext(ctx, skopeo, "--policy", c.path("policy.json"), "copy", "--quiet", "docker-archive:"+archives[i], store)
		cmd.Env = c.environ()
		if _, err := output(cmd); err != nil {
			return err
		}
	}
	return nil
}

// Start starts the daemon, again after Kill, and waits until it answers.
func (c *CRIO) Start(ctx context.Context) (err error) {
	argv := append([]string{filepath.Join(c.bin, "crio"), "--config", c.path("crio.conf"), "--config-dir", c.path("conf.d")}, c.options.args...)
	if c.options.bridge {
		if argv, err = c.state.inNetns(argv); err != nil {
			return err
		}
	}
	if c.server, err = c.state.start("crio", argv, c.environ()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = poll(ctx, func() error {
		_, err := c.cri.Runtime.Version(ctx, &cri.VersionRequest{})
		return stillRunning(c.server, err)
	})
	if err != nil {
		return fmt.Errorf("wait for CRI-O: %w; its log:\n%s", err, c.state.log("crio"))
	}
	return nil
}

// CRI is a client of its CRI.
func (c *CRIO) CRI() *CRI { return c.cri }

// Netns is the path of the network namespace of one with [WithBridge], as nsenter
// --net=PATH takes it.
func (c *CRIO) Netns() string { return c.state.netns() }

// Kill ends the daemon by SIGKILL, as a crash would. Its containers go on.
func (c *CRIO) Kill(ctx context.Context) error { return c.server.kill(ctx) }

// Pause stops the daemon in its tracks (SIGSTOP) until Resume.
func (c *CRIO) Pause() error { return c.server.signal(syscall.SIGSTOP) }

// Resume lets the daemon go on after Pause.
func (c *CRIO) Resume() error { return c.server.signal(syscall.SIGCONT) }

// PID is the daemon's process id.
func (c *CRIO) PID() int { return c.server.PID }

// Close ends the containers and the daemon and takes all they left off the machine.
func (c *CRIO) Close(ctx context.Context) error {
	return errors.Join(c.cri.close(), c.state.clean(ctx))
}
