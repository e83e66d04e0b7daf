package faults

import (
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// back waits until a plugin runs as another process than before.
func back(t *testing.T, tr *harness.Tracer, kind, name string, before int, killed time.Time) *protov1.PluginView {
	t.Helper()
	p := tr.WaitPlugin(kind, name, func(p *protov1.PluginView) bool {
		return p.GetState() == "running" && p.GetPid() != 0 && int(p.GetPid()) != before
	})
	t.Logf("%s %q was back %v after it was killed", kind, name, time.Since(killed).Round(time.Millisecond))
	if p.GetRestarts() == 0 {
		t.Errorf("%s %q was started again, but no restart is counted", kind, name)
	}
	return p
}

func TestEachExecIsToldOnceWhileTheDiscovererIsKilled(t *testing.T) {
	d, p := env.StartDocker(t), load.Build(t)
	old := d.Run(t, "--detach", "--name", "old", env.BusyboxImage, "sleep", "1000")
	tr := harness.Start(t, withDocker(d.Socket, ""))
	tr.WaitContainer(old)
	prefix := tag()
	const n, rate = 12000, 2000
	wait := execs(t, p, prefix, n, rate)
	tr.Until("a part of the load", func(e []harness.Event) bool { return len(byArgument(e, prefix)) > n/10 })

	// Killed while it works.
	pid, killed := tr.PluginPID("discoverer", "docker"), time.Now()
	signal(t, pid, syscall.SIGKILL)
	second := int(back(t, tr, "discoverer", "docker", pid, killed).GetPid())

	// Killed when it has missed a container.
	signal(t, second, syscall.SIGSTOP)
	young := d.Run(t, "--detach", "--name", "young", env.BusyboxImage, "sleep", "1000")
	killed = time.Now()
	if syscall.Kill(second, syscall.SIGKILL) != nil {
		t.Log("the daemon itself had ended the discoverer that hung")
	}
	back(t, tr, "discoverer", "docker", second, killed)
	if c := tr.WaitContainer(young); c.GetContainer().GetName() != "young" {
		t.Errorf("the container that was started meanwhile is named %q", c.GetContainer().GetName())
	}
	word := tag() + "in-young"
	if out, err := d.CLI(t.Context(), "exec", young, "/bin/noop", word); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, e := range tr.UntilCount(1, "process.exec", func(e *harness.Event) bool { return e.Arg(word) }) {
		if e.Process.Executable != nil && e.Process.Executable.Path == "/bin/noop" && (e.Container == nil || e.Container.Name != "young") {
			t.Errorf("an exec in the container is not its own: %s", e.Line)
		}
	}
	fresh := 0
	for _, c := range tr.Containers() {
		if c.GetStale() {
			t.Errorf("container %s is stale after the discoverer came back", c.GetContainer().GetName())
		}
		fresh++
	}
	if fresh != 2 {
		t.Errorf("%d containers are known, want 2", fresh)
	}

	did := wait()
	ledger := tr.Stop()
	checkOnce(t, tr.Events(), prefix, did)
	checkSeen(t, ledger, did)
}

func TestThePolicyHoldsUntilItsTimeIsUpWhenTheSamplerIsKilled(t *testing.T) {
	p := load.Build(t)
	tr := harness.Start(t, `
probe "process" {}
sampler "fixed" { rate = 0.5 }
mesh "generic" {}
`)
	before := tr.Stats().GetPolicy()
	prefix := tag()
	wait := execs(t, p, prefix, 4000, 2000)
	tr.Until("a part of the load", func(e []harness.Event) bool { return len(byArgument(e, prefix)) > 200 })

	pid, killed := tr.PluginPID("sampler", "threshold"), time.Now()
	signal(t, pid, syscall.SIGKILL)
	during := tr.Stats().GetPolicy()
	if during.GetSource() != "fixed" || during.GetGeneration() != before.GetGeneration() {
		t.Errorf("the policy was %v and is %v right after the sampler was killed", before, during)
	}
	back(t, tr, "sampler", "fixed", pid, killed)
	pid, killed = tr.PluginPID("mesh", "generic"), time.Now()
	signal(t, pid, syscall.SIGKILL)
	back(t, tr, "mesh", "generic", pid, killed)
	did := wait()
	if now := tr.Stats().GetPolicy(); now.GetSource() != "fixed" {
		t.Errorf("the policy is %v once the sampler is back", now)
	}

	ledger := tr.Stop()
	c := ledger.Kind("process.exec")
	if c.Seen < did.Execs || c.SampledOut == 0 || c.Kept+c.SampledOut != c.Seen {
		t.Errorf("the ledger of execs is %+v, the load alone made %d at one half", c, did.Execs)
	}
	for arg, n := range byArgument(tr.Events(), prefix) {
		if n != 1 {
			t.Errorf("exec %s was told %d times", arg, n)
		}
	}
	// At one half, 4,000 execs kept by chance alone: 2,000 ± 32. Ten times that is a
	// policy that was not in force for a while.
	if kept := len(byArgument(tr.Events(), prefix)); kept < 1680 || kept > 2320 {
		t.Errorf("of %d execs %d were kept, at a policy of one half", did.Execs, kept)
	}
}

func TestWhatASamplerFiltersIsGoneWhileItsPolicyHolds(t *testing.T) {
	const n = 1000
	p := load.Build(t)
	config := func(says string) string {
		return fmt.Sprintf("plugins { dirs = [\"@DIR@/plugins\"] }\nprobe \"process\" {}\nsampler \"moody\" { says = %q }\n", says)
	}
	tr := harness.Prepare(t, config("no noop"))
	moody(t, tr, "well", "1", "sampler")
	tr.Launch()
	prefix := tag()
	until := func(reason string) {
		t.Helper()
		eventually(t, "the policy "+reason, func() error {
			if s := tr.Stats().GetPolicy(); s.GetReason() != reason {
				return fmt.Errorf("in force is %v", s)
			}
			return nil
		})
	}
	until("no noop")
	did := execs(t, p, prefix+"first:", n, 0)()
	if told := tr.Ask("get", "filters"); !regexp.MustCompile(`(?m)^sampler +0 +drop +comm noop +`).MatchString(told) {
		t.Errorf("the filters are\n%s", told)
	}
	before := tr.Stats().GetPolicy().GetGeneration()
	signal(t, int(pids(t, tr)["sampler moody"]), syscall.SIGKILL)
	eventually(t, "its second policy since it is back", func() error {
		if s := tr.Stats().GetPolicy(); s.GetGeneration() < before+2 || s.GetReason() != "no noop" {
			return fmt.Errorf("in force is %v", s)
		}
		return nil
	})
	again := execs(t, p, prefix+"again:", n, 0)()
	tr.SetConfig(config("all"))
	reload(t, tr)
	until("all")
	last := execs(t, p, prefix+"all:", n, 0)()
	if told := tr.Ask("get", "filters"); strings.Contains(told, "noop") {
		t.Errorf("its next policy has none, and the filters are\n%s", told)
	}

	ledger := tr.Stop()
	for _, filtered := range []string{"first:", "again:"} {
		if got := byArgument(tr.Events(), prefix+filtered); len(got) != 0 {
			t.Errorf("%d execs were told that the sampler filters", len(got))
		}
	}
	checkOnce(t, tr.Events(), prefix+"all:", last)
	c, filtered := ledger.Kind("process.exec"), did.Execs+again.Execs
	if c.Filtered < filtered || c.Kept < last.Execs || c.Seen < filtered+last.Execs || c.Lost != 0 {
		t.Errorf("the ledger of execs is %+v, of which %d were to be filtered and %d to be told", c, filtered, last.Execs)
	}
}

func TestEveryEventIsKeptOnceAHungSamplersPolicyHasEnded(t *testing.T) {
	p := load.Build(t)
	tr := harness.Start(t, "probe \"process\" {}\nsampler \"fixed\" { rate = 0 }\n")
	// A sampler that hangs is killed and started again, again and again; here each
	// process of it is stopped before it can answer.
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			found, err := findPlugins(tr.Binaries)
			if err != nil {
				continue // what the test waits for then never comes
			}
			for _, x := range found {
				_ = syscall.Kill(x.pid, syscall.SIGSTOP) // unless it ended meanwhile
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	eventually(t, "the end of the policy", func() error {
		if s := tr.Stats().GetPolicy(); s.GetSource() != "default" {
			return fmt.Errorf("in force is %v", s)
		}
		return nil
	})
	mark(t, tr, p)
	tr.Signal(syscall.SIGTERM)
	if code := tr.WaitExit(harness.StopsWithin); code != 0 {
		t.Errorf("the daemon ended with status %d while its sampler hung", code)
	}
	ledger, err := harness.ParseLedger(tr.Log())
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range ledger.Check() {
		t.Errorf("the ledger: %s", wrong)
	}
	checkNone(t, tr.Binaries)
}
