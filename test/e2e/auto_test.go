package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// defaultSocket is where dockerd listens that nobody has told otherwise.
const defaultSocket = "/var/run/docker.sock"

// found waits until discoverer "auto" has found dockerd at a socket, and its discoverer
// works.
func found(t *testing.T, tr *harness.Tracer, socket string) *protov1.PluginView {
	t.Helper()
	return tr.WaitPlugin("discoverer", "docker", func(p *protov1.PluginView) bool {
		return p.GetState() == "running" && strings.HasPrefix(p.GetFound(), "docker ") && strings.HasSuffix(p.GetFound(), " at "+socket)
	})
}

// gone waits until dockerd's discoverer was stopped, and checks that what it told went
// too.
func gone(t *testing.T, tr *harness.Tracer) {
	t.Helper()
	p := tr.WaitPlugin("discoverer", "docker", func(p *protov1.PluginView) bool { return p.GetState() == "absent" })
	if p.GetFound() != "" || p.GetPid() != 0 || !strings.Contains(p.GetReason(), "no engine at ") {
		t.Errorf("a discoverer whose runtime is not here is %v", p)
	}
	if left := tr.Containers(); len(left) > 0 {
		t.Errorf("known are %v", left)
	}
}

// firstIsNamed starts a container and checks that its first exec carries its name.
func firstIsNamed(t *testing.T, tr *harness.Tracer, d *env.Docker) (id string) {
	t.Helper()
	mine := tag()
	name := strings.Trim(mine, ":")
	id = d.Run(t, "--detach", "--name", name, env.NoopImage, mine)
	e := tr.UntilCount(1, "process.exec", func(e *harness.Event) bool { return inside(mine)(e) && e.Process.Executable.Path == "/noop" })[0]
	checkIs(t, e, id, name, noopName, "test")
	return id
}

func TestAutoFollowsADockerdThatComesRestartsAndGoes(t *testing.T) {
	// The grace is longer than dockerd takes to be back.
	tr := harness.Start(t, "probe \"process\" {}\ndiscoverer \"auto\" {\n  only  = [\"docker\"]\n  grace = \"20s\"\n}\n")
	gone(t, tr)
	d := env.StartDocker(t, env.WithSocket(defaultSocket), env.WithArgs("--live-restore"))
	p := found(t, tr, defaultSocket)
	if p.GetRestarts() != 0 || !slices.Contains(p.GetSandbox().GetGranted(), "socket "+defaultSocket) {
		t.Errorf("the discoverer is %v", p)
	}
	old := d.Run(t, "--detach", env.BusyboxImage, "sleep", "1000")
	tr.WaitContainer(old)
	// Restarted, in good order and by a crash: the first container is named at once, and
	// the one before was never forgotten.
	for _, restart := range []func() error{
		func() error { return d.Restart(t.Context()) },
		func() error { return errors.Join(d.Kill(t.Context()), d.Start(t.Context())) },
	} {
		if err := restart(); err != nil {
			t.Fatal(err)
		}
		firstIsNamed(t, tr, d)
		if view := tr.WaitContainer(old); view.GetStale() {
			t.Error("a container that went on is stale though dockerd is back")
		}
		found(t, tr, defaultSocket)
	}
	if log := tr.Log(); strings.Count(log, "a discoverer is started, for its runtime is here") != 1 || strings.Contains(log, "a discoverer is stopped") {
		t.Error("a dockerd that was only restarted was taken for another")
	}

	// Gone, with its socket and without.
	reload := func(grace string) {
		t.Helper()
		tr.SetConfig(fmt.Sprintf("probe \"process\" {}\ndiscoverer \"auto\" {\n  only  = [\"docker\"]\n  grace = %q\n}\n", grace))
		tr.Ask("reload")
	}
	for _, end := range []func() error{
		func() error { return d.Stop(t.Context()) },
		func() error { return d.Kill(t.Context()) },
	} {
		reload("1s")
		if err := end(); err != nil {
			t.Fatal(err)
		}
		gone(t, tr)
		reload("20s")
		if err := d.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		// It is asked, and started anew: on a machine that is busy that takes longer than
		// first events are held for.
		found(t, tr, defaultSocket)
		tr.WaitContainer(old)
		firstIsNamed(t, tr, d)
	}
	tr.Stop()
}

func TestADockerdThatIsReachedOnlyBelowTheMountedHostRootIsFound(t *testing.T) {
	if _, err := os.Lstat(defaultSocket); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%s: something is there already (%v)", defaultSocket, err)
	}
	host := filepath.Join(t.TempDir(), "host")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	tr := harness.Prepare(t, fmt.Sprintf("node {\n  name      = \"e2e\"\n  host_root = %q\n}\nprobe \"process\" {}\ndiscoverer \"auto\" { only = [\"docker\"] }\n", host))
	// As in a container: the host's root is mounted, and what the daemon itself sees at
	// /run is another.
	tr.Through = []string{"unshare", "--mount", "--propagation", "private", "sh", "-ec",
		`mount --rbind / "$0"; mount -t tmpfs none /run; exec "$@"`, host}
	tr.Launch()
	tr.WaitPlugins()
	gone(t, tr)
	d := env.StartDocker(t, env.WithSocket(defaultSocket))
	p := found(t, tr, filepath.Join(host, "run/docker.sock"))
	for _, want := range []string{"socket " + defaultSocket, "socket " + host + defaultSocket} {
		if !slices.Contains(p.GetSandbox().GetGranted(), want) {
			t.Errorf("it is not granted %s: %v", want, p.GetSandbox().GetGranted())
		}
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/run/docker.sock", tr.PID())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the daemon sees the socket at its own place too: %v", err)
	}
	firstIsNamed(t, tr, d)
	if err := d.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	firstIsNamed(t, tr, d)
	tr.Stop()
}

func TestAutoFindsDockerAndPodmanSideBySide(t *testing.T) {
	const at = "/run/podman/podman.sock"
	if err := os.Mkdir(filepath.Dir(at), 0o700); err == nil {
		t.Cleanup(func() {
			if err := os.Remove(filepath.Dir(at)); err != nil {
				t.Error(err)
			}
		})
	} else if !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	tr := harness.Start(t, "probe \"process\" {}\ndiscoverer \"auto\" { only = [\"docker\", \"podman\"] }\n")
	gone(t, tr)
	d, p := env.StartDocker(t, env.WithSocket(defaultSocket)), env.StartPodman(t, env.WithSocket(at))
	found(t, tr, defaultSocket)
	tr.WaitPlugin("discoverer", "podman", func(p *protov1.PluginView) bool {
		return p.GetState() == "running" && strings.HasPrefix(p.GetFound(), "podman ") && strings.HasSuffix(p.GetFound(), " at "+at)
	})
	for runtime, run := range map[string]func(t testing.TB, args ...string) string{"docker": d.Run, "podman": p.Run} {
		// Podman's service tells after seconds only how it makes cgroups.
		tr.WaitContainer(run(t, "--detach", env.BusyboxImage, "sleep", "1000"))
		mine := tag()
		name := strings.Trim(mine, ":")
		id := run(t, "--detach", "--name", name, env.BusyboxImage, "sh", "-c", "/bin/noop "+mine+"; exec sleep 1000")
		first := tr.UntilCount(1, "process.exec", func(e *harness.Event) bool { return inside(mine)(e) && e.Process.Executable.Path == "/bin/noop" })[0]
		checkIsOf(t, first, runtime, id, name, busyboxName, "test")
		if view := tr.WaitContainer(id); view.GetContainer().GetRuntime() != runtime || !slices.Equal(view.GetSources(), []string{runtime}) {
			t.Errorf("a container of %s is %v", runtime, view)
		}
	}
	if all := tr.Containers(); len(all) != 4 {
		t.Errorf("known are %v", all)
	}
	tr.Stop()
}

func TestAContainerThatTwoDiscoverersTellIsCountedOnce(t *testing.T) {
	d := env.StartDocker(t, env.WithSocket(defaultSocket))
	// The one below dockerd listens where nobody looks for it: it is named.
	tr := harness.Start(t, fmt.Sprintf(
		"probe \"process\" {}\ndiscoverer \"auto\" { except = [\"crio\", \"oci\"] }\ndiscoverer \"containerd\" { address = \"unix://%s\" }\n", d.Containerd().Socket))
	found(t, tr, defaultSocket)
	if p := tr.WaitPlugin("discoverer", "containerd", func(p *protov1.PluginView) bool { return p.GetState() == "running" }); p.GetFound() != "" {
		t.Errorf("the one that the file names was found at %s", p.GetFound())
	}
	mine := tag()
	name := strings.Trim(mine, ":")
	id := d.Run(t, "--detach", "--name", name, env.BusyboxImage, "sh", "-c", "/bin/noop "+mine+"; exec sleep 1000")
	first := tr.UntilCount(1, "process.exec", func(e *harness.Event) bool { return inside(mine)(e) && e.Process.Executable.Path == "/bin/noop" })[0]
	checkIs(t, first, id, name, busyboxName, "test")
	deadline := time.Now().Add(harness.Patience)
	for {
		all := tr.Containers()
		if len(all) == 1 && len(all[0].GetSources()) == 2 {
			if c := all[0]; c.GetContainer().GetId() != id || c.GetContainer().GetName() != name || !slices.Equal(c.GetSources(), []string{"docker", "containerd"}) {
				t.Errorf("it is %v", c)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not one container with two sources is known: %v", all)
		}
		time.Sleep(20 * time.Millisecond)
	}
	tr.Stop()
}
