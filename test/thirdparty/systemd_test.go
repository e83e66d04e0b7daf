package thirdparty

import (
	"maps"
	"strings"
	"syscall"
	"testing"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// No systemd runs here. What it would make for its units is made by hand: control groups
// that are named after them.
func TestEachExecOfAUnitCarriesTheUnitsName(t *testing.T) {
	const n = 50
	programs := load.Build(t)
	h := newHierarchy(t)
	before := h.make(h.top + "/before.service")
	tr := harness.Start(t, withPlugins(`discoverer "systemd" { units = ["*.service", "run-*"] }`))

	inside := h.make(before + "/inside") // of the unit, as that may
	instance := h.make(h.top + "/worker@7.service")
	run := h.make(h.top + "/run-r1.scope")
	container := h.make(h.top + "/run-" + strings.Repeat("0f", 32) + ".scope")
	unasked := h.make(h.top + "/session-1.scope")
	for _, id := range []string{before, instance, run} {
		if c := tr.WaitContainer(id).GetContainer(); c.GetScope() != "systemd" || c.GetRuntime() != "systemd" {
			t.Errorf("%s is known as %v", id, c)
		}
	}
	type load struct {
		cgroup, tag, unit string
		labels            map[string]string
	}
	top := strings.TrimPrefix(h.top, "/")
	loads := []load{
		{before, tag(), "before.service", map[string]string{"systemd.unit": "before.service", "systemd.slice": top}},
		{inside, tag(), "before.service", map[string]string{"systemd.unit": "before.service", "systemd.slice": top}},
		{instance, tag(), "worker@7.service", map[string]string{
			"systemd.unit": "worker@7.service", "systemd.slice": top,
			"systemd.template": "worker@.service", "systemd.instance": "7",
		}},
		{run, tag(), "run-r1.scope", map[string]string{"systemd.unit": "run-r1.scope", "systemd.slice": top}},
		{h.top, tag(), "", nil},
		{container, tag(), "", nil},
		{unasked, tag(), "", nil},
	}
	for _, l := range loads {
		h.load(programs, l.cgroup, n, l.tag)
	}

	// It is started again, and at once does what it is there for. The plugin can't be
	// heard meanwhile: what it said of the unit before is what counts.
	h.remove(instance)
	plugin := tr.WaitPlugin("discoverer", "systemd", func(*protov1.PluginView) bool {
		return tr.WaitContainer(instance).GetContainer().GetState() == protov1.Container_STATE_EXITED
	})
	signal(t, plugin.GetPid(), syscall.SIGSTOP)
	again := load{h.make(instance), tag(), "worker@7.service", loads[2].labels}
	h.load(programs, again.cgroup, n, again.tag)
	tr.Until("the execs of a unit that was started again", func(events []harness.Event) bool {
		return len(tagged(events, programs.Noop, again.tag)) >= n
	})
	signal(t, plugin.GetPid(), syscall.SIGCONT)
	loads = append(loads, again)
	tr.Stop()
	for _, l := range loads {
		execs := tagged(tr.Events(), programs.Noop, l.tag)
		if len(execs) != n {
			t.Errorf("%s: %d execs were told, the load made %d", l.cgroup, len(execs), n)
		}
		for _, e := range execs {
			switch {
			case l.unit == "":
				if e.Container != nil && e.Container.Name != "" {
					t.Fatalf("an exec in %s, which is no unit that was asked for: %s", l.cgroup, e.Line)
				}
			case e.Container == nil || e.Container.Name != l.unit || e.Container.Runtime.Name != "systemd" || !maps.Equal(e.Container.Label, l.labels):
				t.Fatalf("an exec in %s: %s", l.cgroup, e.Line)
			}
		}
	}
}

func signal(t *testing.T, pid uint32, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(int(pid), s); err != nil {
		t.Fatal(err)
	}
}
