package env

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// Docker is a dockerd of its own with its own containerd, and [BusyboxImage] and
// [NoopImage] in it. It listens on its Socket alone. Containers are started with
// docker's own defaults, so that their cgroup is /docker/ID.
//
// Its methods may be called from several goroutines, but for those that start and end
// the daemon.
type Docker struct {
	Socket string

	options    options
	state      *state
	containerd *Containerd
	server     *daemon
}

// StartDocker starts a dockerd and takes it off the machine when the test ends.
func StartDocker(t testing.TB, opts ...Option) *Docker {
	t.Helper()
	d, err := NewDocker(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeWithTest(t, d.Close) })
	return d
}

// NewDocker starts a dockerd, whose owner has to call Close.
func NewDocker(ctx context.Context, opts ...Option) (*Docker, error) {
	d := &Docker{options: collect(opts)}
	var err error
	if d.state, err = newState(ctx, d.options.name); err != nil {
		return nil, err
	}
	if err := d.setUp(ctx); err != nil {
		return nil, errors.Join(err, d.state.clean(ctx))
	}
	return d, nil
}

func (d *Docker) setUp(ctx context.Context) (err error) {
	if d.Socket, err = d.state.socket(d.options.socket, "docker.sock"); err != nil {
		return err
	}
	if d.options.bridge {
		if err := d.state.makeNetns(ctx); err != nil {
			return err
		}
	}
	if d.containerd, err = startContainerd(ctx, d.state); err != nil {
		return err
	}
	if err := d.configure(); err != nil {
		return err
	}
	if err := d.Start(ctx); err != nil {
		return err
	}
	archives, err := d.state.images()
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if _, err := d.CLI(ctx, "load", "--quiet", "--input", archive); err != nil {
			return err
		}
	}
	return nil
}

// configure writes daemon.json. Without one of its own, dockerd would read the machine's.
func (d *Docker) configure() error {
	remapped, err := d.state.remapped(d.containerd.runtime)
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"runtimes": map[string]any{
			"test":          map[string]any{"path": d.containerd.runtime},
			RemappedRuntime: map[string]any{"path": remapped},
		},
		"default-runtime":     "test",
		"deprecated-key-path": d.state.path("docker", "key.json"),
		"exec-opts":           []string{"native.cgroupdriver=cgroupfs"},
	})
	if err != nil {
		return fmt.Errorf("configure dockerd: %w", err)
	}
	if err := os.WriteFile(d.state.path("daemon.json"), config, 0o644); err != nil {
		return fmt.Errorf("configure dockerd: %w", err)
	}
	return nil
}

// Netns is the path of the network namespace of a dockerd with [WithBridge], as nsenter
// --net=PATH takes it.
func (d *Docker) Netns() string { return d.state.netns() }

// Start starts dockerd, again after Kill or Stop, and waits until it answers.
func (d *Docker) Start(ctx context.Context) error {
	path, err := command("dockerd")
	if err != nil {
		return err
	}
	argv := []string{path,
		"--config-file", d.state.path("daemon.json"),
		"--data-root", d.state.path("docker", "root"),
		"--exec-root", d.state.path("docker", "exec"),
		"--pidfile", d.state.path("docker.pid"),
		"--containerd", d.containerd.Socket,
		"--host", "unix://" + d.Socket,
		"--storage-driver", "overlay2",
	}
	if d.options.bridge {
		if argv, err = d.state.inNetns(argv); err != nil {
			return err
		}
	} else {
		argv = append(argv, "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false")
	}
	if d.server, err = d.state.start("dockerd", append(argv, d.options.args...), commandEnv()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = poll(ctx, func() error {
		_, err := d.CLI(ctx, "version")
		return stillRunning(d.server, err)
	})
	if err != nil {
		return fmt.Errorf("wait for dockerd: %w; its log:\n%s", err, d.state.log("dockerd"))
	}
	return nil
}

// Stop ends dockerd by SIGTERM. Its containers end with it, unless it was started with
// --live-restore.
func (d *Docker) Stop(ctx context.Context) error { return d.server.stop(ctx, 30*time.Second) }

// Kill ends dockerd by SIGKILL, as a crash would. Its containers go on until Start.
func (d *Docker) Kill(ctx context.Context) error { return d.server.kill(ctx) }

// Restart is Stop and Start.
func (d *Docker) Restart(ctx context.Context) error {
	if err := d.Stop(ctx); err != nil {
		return err
	}
	return d.Start(ctx)
}

// Pause stops dockerd in its tracks (SIGSTOP) until Resume: it accepts connections and
// answers none. Its containers go on.
func (d *Docker) Pause() error { return d.server.signal(syscall.SIGSTOP) }

// Resume lets dockerd go on after Pause.
func (d *Docker) Resume() error { return d.server.signal(syscall.SIGCONT) }

// PID is dockerd's process id.
func (d *Docker) PID() int { return d.server.PID }

// Containerd is the containerd below dockerd, whose containers are in the namespace
// "moby".
func (d *Docker) Containerd() *Containerd { return d.containerd }

// Command prepares the docker command, of the distribution's package, for this daemon.
func (d *Docker) Command(ctx context.Context, args ...string) *exec.Cmd {
	path, err := command("docker")
	cmd := exec.CommandContext(ctx, path, append([]string{"--host", "unix://" + d.Socket}, args...)...)
	cmd.Err = errors.Join(err, cmd.Err)
	cmd.Env = commandEnv("DOCKER_CONFIG=" + d.state.path("docker", "client"))
	return cmd
}

// CLI runs the docker command and returns what it printed, without white space around.
func (d *Docker) CLI(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	return output(d.Command(ctx, args...))
}

// Run is docker run: it returns what was printed, with --detach the container's id. The
// test fails if the command does.
func (d *Docker) Run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := d.CLI(t.Context(), append([]string{"run"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Close ends the containers and the daemons and takes all they left off the machine.
func (d *Docker) Close(ctx context.Context) error { return d.state.clean(ctx) }
