package faults

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// degraded waits until the discoverer says that its dockerd is away, and checks that it
// names the socket.
func degraded(t *testing.T, tr *harness.Tracer, d *env.Docker, why string) {
	t.Helper()
	p := tr.WaitPlugin("discoverer", "docker", func(p *protov1.PluginView) bool { return p.GetState() == "degraded" })
	if !strings.Contains(p.GetReason(), d.Socket) || !strings.Contains(p.GetReason(), why) {
		t.Errorf("the reason is %q: it should name %s and say %q", p.GetReason(), d.Socket, why)
	}
	if p.GetRestarts() != 0 {
		t.Errorf("the discoverer itself was started again %d times: it was never at fault", p.GetRestarts())
	}
}

func running(t *testing.T, tr *harness.Tracer) {
	t.Helper()
	tr.WaitPlugin("discoverer", "docker", func(p *protov1.PluginView) bool {
		return p.GetState() == "running" && p.GetReason() == ""
	})
}

// named starts a container and checks that what runs in it carries its name.
func named(t *testing.T, tr *harness.Tracer, d *env.Docker, name string) (id string) {
	t.Helper()
	word := tag() + name
	id = d.Run(t, "--detach", "--name", name, env.BusyboxImage, "sh", "-c", "/bin/noop "+word+"; exec sleep 1000")
	for _, e := range tr.UntilCount(1, "process.exec", func(e *harness.Event) bool {
		return e.Arg(word) && e.Process.Executable != nil && e.Process.Executable.Path == "/bin/noop"
	}) {
		if e.Container == nil || e.Container.Name != name || e.Container.ID != id {
			t.Errorf("an exec of container %s is not its own: %s", name, e.Line)
		}
	}
	return id
}

// listed tells whether the daemon takes a container for running.
func listed(tr *harness.Tracer, id string) bool {
	for _, c := range tr.Containers() {
		if c.GetContainer().GetId() == id && c.GetContainer().GetState() == protov1.Container_STATE_RUNNING {
			return true
		}
	}
	return false
}

func TestADockerdThatComesGoesAndHangsIsToldAndCaughtUpWith(t *testing.T) {
	d, p := env.StartDocker(t, env.WithArgs("--live-restore")), load.Build(t)
	old := d.Run(t, "--detach", "--name", "old", env.BusyboxImage, "sleep", "1000")
	if err := d.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	// Absent at the start.
	tr := harness.Start(t, withDocker(d.Socket, ""))
	degraded(t, tr, d, "no Docker daemon")
	mark(t, tr, p)
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	running(t, tr)
	tr.WaitContainer(old)
	first := named(t, tr, d, "first")

	// Killed; a container ends before it is back.
	pid, err := d.CLI(t.Context(), "inspect", "--format", "{{.State.Pid}}", old)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	degraded(t, tr, d, "")
	mark(t, tr, p)
	if !listed(tr, old) || !listed(tr, first) {
		t.Errorf("while dockerd is away its containers are not known any more: %v", tr.Containers())
	}
	var init int
	if _, err := fmt.Sscan(pid, &init); err != nil {
		t.Fatal(err)
	}
	signal(t, init, syscall.SIGKILL)
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	running(t, tr)
	eventually(t, "the end of the container that ended meanwhile", func() error {
		if listed(tr, old) {
			return fmt.Errorf("it is known still: %v", tr.Containers())
		}
		return nil
	})
	if !listed(tr, first) {
		t.Error("a container that went on is not known any more")
	}
	named(t, tr, d, "second")

	// Half open: it accepts connections and answers none.
	if err := d.Pause(); err != nil {
		t.Fatal(err)
	}
	degraded(t, tr, d, "does not answer")
	mark(t, tr, p)
	if err := d.Resume(); err != nil {
		t.Fatal(err)
	}
	running(t, tr)
	named(t, tr, d, "third")

	// Restarted in good order.
	if err := d.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	running(t, tr)
	named(t, tr, d, "fourth")
	tr.Stop()
}

func TestTheDaemonEndsInTimeWhileDockerdHangs(t *testing.T) {
	d := env.StartDocker(t)
	tr := harness.Start(t, withDocker(d.Socket, ""))
	running(t, tr)
	if err := d.Pause(); err != nil {
		t.Fatal(err)
	}
	tr.Stop()
	if err := d.Resume(); err != nil {
		t.Fatal(err)
	}
}
