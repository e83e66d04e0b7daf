package runtimes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// detached starts a container that sleeps.
func detached(t *testing.T, rt env.Runtime, name string) (id string) {
	t.Helper()
	id, err := rt.RunDetached(t.Context(), env.Spec{Name: name, Image: env.BusyboxImage, Args: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// executed runs a program in a container and waits until its exec is told.
func executed(t *testing.T, tr *harness.Tracer, rt env.Runtime, id, word string) *harness.Event {
	t.Helper()
	if err := rt.Exec(t.Context(), id, "/bin/noop", word); err != nil {
		t.Fatal(err)
	}
	return tr.UntilCount(1, "process.exec", inside("/bin/noop", word))[0]
}

// known tells whether the daemon takes a container for one that is there.
func known(tr *harness.Tracer, id string) bool {
	for _, c := range tr.Containers() {
		if c.GetContainer().GetId() == id {
			return true
		}
	}
	return false
}

func olderExecRemoval(t *testing.T, r row, rt env.Runtime) {
	mine := tag()
	name := mine + "-older"
	id := detached(t, rt, name)
	tr := start(t, rt)
	view := tr.WaitContainer(id)
	if got := view.GetContainer().GetName(); got != name {
		t.Errorf("its name is %q, want %q", got, name)
	}
	const n = 3
	for i := range n {
		word := fmt.Sprintf("%s-exec-%d", mine, i)
		r.isOf(t, executed(t, tr, rt, id, word), id, name, env.BusyboxImage)
	}
	if err := rt.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the removal of the container", func() error {
		if known(tr, id) {
			return errors.New("the daemon knows it still")
		}
		return nil
	})
	checkLedger(t, tr.Stop(), map[string]int64{"process.exec": 2 * n})
}

// namespaceFilter has what runs in a namespace of pods filtered for a while.
func namespaceFilter(t *testing.T, r row, rt env.Runtime) {
	mine := tag()
	word := func(when string) string { return mine + "-" + when }
	id := detached(t, rt, word("filtered"))
	remove(t, rt, id)
	tr := start(t, rt)
	tr.WaitContainer(id)
	executed(t, tr, rt, id, word("before"))
	filter := &protov1.Filter{Name: "tenant", Namespace: []string{"other", "def?ult"}}
	if _, err := tr.API().AddFilters(t.Context(), &protov1.AddFiltersRequest{Filters: []*protov1.Filter{filter}}); err != nil {
		t.Fatal(err)
	}
	if err := rt.Exec(t.Context(), id, "/bin/noop", word("while")); err != nil {
		t.Fatal(err)
	}
	removed, err := tr.API().RemoveFilter(t.Context(), &protov1.RemoveFilterRequest{Name: filter.GetName()})
	if err != nil {
		t.Fatal(err)
	}
	executed(t, tr, rt, id, word("after"))
	ledger := tr.Stop()
	shown := len(harness.Select(tr.Events(), "process.exec", inside("/bin/noop", word("while"))))
	if r.namespace == "" && (shown != 1 || removed.GetEvents() > 0) {
		t.Errorf("in no pod, it is told %d times, and the filter counted %d events", shown, removed.GetEvents())
	}
	if r.namespace != "" && (shown != 0 || removed.GetEvents() == 0) {
		t.Errorf("in a pod of the namespace, it is told %d times, and the filter counted %d events", shown, removed.GetEvents())
	}
	if filtered := ledger.Kind("process.exec").Filtered; r.namespace != "" && filtered == 0 {
		t.Error("no exec was filtered by the ledger")
	}
	checkLedger(t, ledger, map[string]int64{"process.exec": 2})
}

// background runs a load of execs on the host and gives its own count when it has ended.
func background(t *testing.T, p *load.Programs, prefix string, n, rate int) (wait func() load.ExecCounts) {
	t.Helper()
	type result struct {
		counts load.ExecCounts
		err    error
	}
	done := make(chan result, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	go func() { // done holds the only result: it never waits for a reader
		c, err := p.RunExec(ctx, "-n", fmt.Sprint(n), "-p", "2", "-r", fmt.Sprint(rate), "-a", prefix, p.Noop)
		done <- result{c, err}
	}()
	return func() load.ExecCounts {
		t.Helper()
		r := <-done
		if r.err != nil {
			t.Fatal(r.err)
		}
		return r.counts
	}
}

// serving waits until the discoverer has nothing to complain about.
func serving(tr *harness.Tracer, rt env.Runtime, pid int) {
	name, _ := rt.Discoverer()
	tr.WaitPlugin("discoverer", name, func(p *protov1.PluginView) bool {
		return p.GetState() == "running" && p.GetReason() == "" && int(p.GetPid()) != pid
	})
}

// resynced waits until a discoverer that was away serves again and what it told of a
// container is current, and gives how long that took.
func resynced(t *testing.T, tr *harness.Tracer, rt env.Runtime, pid int, id string) time.Duration {
	t.Helper()
	since := time.Now()
	serving(tr, rt, pid)
	eventually(t, "container "+id+" to be current", func() error {
		for _, c := range tr.Containers() {
			if c.GetContainer().GetId() == id && !c.GetStale() {
				return nil
			}
		}
		return errors.New("it is stale or not known")
	})
	return time.Since(since).Round(time.Millisecond)
}

// killDiscoverer ends the process of the discoverer, and gives which it was.
func killDiscoverer(t *testing.T, tr *harness.Tracer, rt env.Runtime) (pid int) {
	t.Helper()
	if pid = discovererPID(tr, rt); pid == 0 {
		t.Fatal("the discoverer does not run")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	return pid
}

// current runs programs in a container until their execs carry a description that is not
// stale: a discoverer whose socket is another one is replaced, and what it told stays,
// marked, until the new one has caught up.
func (r row) current(t *testing.T, tr *harness.Tracer, rt env.Runtime, id, name, word string) {
	t.Helper()
	n := 0
	var last *harness.Event
	eventually(t, "a description that is current", func() error {
		last = executed(t, tr, rt, id, fmt.Sprintf("%s-%d", word, n))
		n++
		if c := last.Container; c == nil || c.ID != id || c.Name != name {
			t.Fatalf("the event is not of container %s (%s): %s", id, name, last.Line)
		}
		if last.Container.Stale {
			return errors.New("it is marked stale still")
		}
		return nil
	})
	r.isOf(t, last, id, name, env.BusyboxImage)
}

// killed kills the runtime's daemon and then the discoverer while programs are run.
func killed(t *testing.T, r row, rt env.Runtime) {
	p := load.Build(t)
	tr := start(t, rt)
	mine := tag()
	stays := detached(t, rt, mine+"-stays")
	remove(t, rt, stays)
	tr.WaitContainer(stays)
	prefix := mine + "-load:"
	const n, rate = 6000, 500
	wait := background(t, p, prefix, n, rate)

	err := rt.Kill(t.Context())
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		t.Log("the runtime has no daemon that could be killed")
	case err != nil:
		t.Fatal(err)
	default:
		name, _ := rt.Discoverer()
		tr.WaitPlugin("discoverer", name, func(p *protov1.PluginView) bool { return p.GetState() == "degraded" })
		if !known(tr, stays) {
			t.Error("while the runtime is away, its container is not known any more")
		}
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("the runtime's socket answers again; what was known is current in %v", resynced(t, tr, rt, 0, stays))
		back := time.Now()
		first := detached(t, rt, mine+"-first")
		made := time.Since(back)
		remove(t, rt, first)
		tr.WaitContainer(first)
		t.Logf("a container that was made then is known in %v; to make it took %v of that",
			time.Since(back).Round(time.Millisecond), made.Round(time.Millisecond))
		r.current(t, tr, rt, stays, mine+"-stays", mine+"-after-runtime")
	}

	t.Logf("what was known is current %v after the discoverer's death", resynced(t, tr, rt, killDiscoverer(t, tr, rt), stays))
	killDiscoverer(t, tr, rt) // the container is made meanwhile
	second := detached(t, rt, mine+"-second")
	remove(t, rt, second)
	tr.WaitContainer(second)
	r.current(t, tr, rt, stays, mine+"-stays", mine+"-after-discoverer")
	r.current(t, tr, rt, second, mine+"-second", mine+"-after-discoverer-second")

	did := wait()
	tr.UntilCount(int(did.Execs), "process.exec", func(e *harness.Event) bool { return loaded(e, prefix) != "" })
	ledger := tr.Stop()
	told := map[string]int{}
	for _, e := range harness.Select(tr.Events(), "process.exec", nil) {
		if arg := loaded(e, prefix); arg != "" {
			told[arg]++
			if e.Container != nil || e.Pending {
				t.Errorf("a process of the host is told to be of a container: %s", e.Line)
			}
		}
	}
	for i := range did.Execs {
		if got := told[fmt.Sprintf("%s%06d", prefix, i)]; got != 1 {
			t.Errorf("exec %06d of the load was told %d times", i, got)
		}
	}
	if int64(len(told)) != did.Execs {
		t.Errorf("%d different execs were told, the load made %d", len(told), did.Execs)
	}
	checkLedger(t, ledger, map[string]int64{"process.fork": did.Forks, "process.exec": did.Execs, "process.exit": did.Exits})
	t.Logf("meanwhile %d execs on the host, each told once", did.Execs)
}

// loaded is the argument of an exec of the load; "" for another.
func loaded(e *harness.Event, prefix string) string {
	for _, a := range e.Process.Args[min(1, len(e.Process.Args)):] {
		if len(a) > len(prefix) && strings.HasPrefix(a, prefix) { // the load itself has the prefix
			return a
		}
	}
	return ""
}
