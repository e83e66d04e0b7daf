package faults

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// wanderers are discoverers of a third party, each of a runtime that is a file.
type wanderers struct {
	t  *testing.T
	tr *harness.Tracer
}

var buildWanderer = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "wanderer-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "wanderer")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", program, "./testdata/wanderer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the plugin: %w\n%s", err, text)
	}
	return os.ReadFile(program)
})

// install puts wanderers into the directory that configurations name for plugins. more
// stands in their manifests.
func (w wanderers) install(more string, names ...string) {
	w.t.Helper()
	program, err := buildWanderer()
	if err != nil {
		w.t.Fatal(err)
	}
	dir := filepath.Join(w.tr.Dir, "plugins", "discoverer")
	err = errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(filepath.Join(w.tr.Dir, "world"), 0o755),
		os.WriteFile(filepath.Join(dir, "wanderer"), program, 0o755))
	for _, n := range names {
		manifest := fmt.Sprintf("plugin \"discoverer\" %q {\n  protocol = 1\n  command  = [\"./wanderer\", %q, %q]\n  needs { paths = [%q] }\n  %s\n}\n",
			n, n, w.file(n), w.file(n), more)
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, n+".plugin.hcl"), []byte(manifest), 0o644))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		for _, n := range names {
			if err := os.RemoveAll(filepath.Join(harness.StateDir(), "discoverer", n)); err != nil {
				w.t.Error(err)
			}
		}
	})
}

func (w wanderers) file(name string) string { return filepath.Join(w.tr.Dir, "world", name) }

// are puts runtimes into a mood, in one step; "" takes them away.
func (w wanderers) are(mood string, names ...string) {
	w.t.Helper()
	for _, n := range names {
		var err error
		if next := w.file(n) + ".next"; mood == "" {
			err = os.Remove(w.file(n))
		} else {
			err = errors.Join(os.WriteFile(next, []byte(mood+"\n"), 0o644), os.Rename(next, w.file(n)))
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// auto is a configuration with discoverer "auto" that leaves out what ships, and others.
func (w wanderers) auto(more string, others ...string) string {
	w.t.Helper()
	shipped, err := filepath.Glob(filepath.Join(w.tr.Binaries.Plugins, "discoverer", "*.plugin.hcl"))
	if err != nil || len(shipped) == 0 {
		w.t.Fatalf("no discoverer ships: %v", err)
	}
	for _, s := range shipped {
		others = append(others, strings.TrimSuffix(filepath.Base(s), ".plugin.hcl"))
	}
	return fmt.Sprintf("discoverer \"auto\" {\n  except = [\"%s\"]\n  %s\n}\n", strings.Join(others, `", "`), more)
}

// base is what all configurations have.
const base = "plugins { dirs = [\"@DIR@/plugins\"] }\nprobe \"process\" {}\n"

// is waits until a discoverer is in a state and says a word of it.
func (w wanderers) is(state, says string, names ...string) {
	w.t.Helper()
	for _, n := range names {
		w.tr.WaitPlugin("discoverer", n, func(p *protov1.PluginView) bool {
			found := p.GetFound()
			if state != "running" {
				found = p.GetReason()
			}
			return p.GetState() == state && strings.Contains(found, says)
		})
	}
}

// tell waits until exactly these containers are known.
func (w wanderers) tell(names ...string) {
	w.t.Helper()
	eventually(w.t, "the containers", func() error {
		got := map[string]bool{}
		for _, c := range w.tr.Containers() {
			got[c.GetContainer().GetName()] = true
		}
		if now := slices.Sorted(maps.Keys(got)); !slices.Equal(now, slices.Sorted(slices.Values(names))) {
			return fmt.Errorf("known are %q, want %q", now, names)
		}
		return nil
	})
}

func (w wanderers) pid(name string) uint32 {
	w.t.Helper()
	return w.tr.WaitPlugin("discoverer", name, func(p *protov1.PluginView) bool { return p.GetPid() != 0 }).GetPid()
}

func TestOfTwentyDiscoverersThoseRunWhoseRuntimesAreHereWhateverTheOthersDo(t *testing.T) {
	tr := harness.Prepare(t, "")
	w := wanderers{t, tr}
	var absent []string
	for n := range 11 {
		absent = append(absent, fmt.Sprintf("absent-%d", n))
	}
	hanging, crashing := []string{"a-hang-1", "a-hang-2", "a-hang-3", "a-hang-4"}, []string{"a-crash-1", "a-crash-2"}
	w.install("", slices.Concat(absent, hanging, crashing, []string{"here", "needy"})...)
	w.install("auto { enabled = false }", "never")
	w.install("auto { fallback = true }", "last")
	w.are("here", "here", "needy", "never")
	w.are("hang", hanging...)
	w.are("crash", crashing...)
	tr.SetConfig(base + w.auto("grace = \"1s\""))
	tr.Launch()
	w.is("running", "at here", "here")
	w.is("absent", "no absent-", absent...)
	w.is("unknown", "did not answer in time", hanging...)
	w.is("unknown", "nobody is to know", crashing...)
	w.is("skipped", "needs arguments", "needy")
	w.is("skipped", "its manifest", "never")
	w.is("absent", "no last", "last")
	w.tell("here")

	// Runtimes come and go; the one to fall back to runs while there is none.
	w.are("here", "absent-7", "a-hang-1", "a-crash-1")
	w.is("running", "at ", "absent-7", "a-hang-1", "a-crash-1")
	w.tell("here", "absent-7", "a-hang-1", "a-crash-1")
	w.are("", "here", "absent-7", "a-hang-1", "a-crash-1")
	w.is("absent", "no ", "here", "absent-7", "a-hang-1", "a-crash-1")
	w.is("running", "nothing else is here", "last")
	w.tell("last")
	w.are("here", "here")
	w.is("running", "at here", "here")
	w.is("absent", "no last", "last")
	w.tell("here")
	w.are("here", "last")
	w.is("running", "at last", "last")
	w.tell("here", "last")
	for _, p := range list(t, tr) {
		if p.GetRestarts() != 0 {
			t.Errorf("%s was started again %d times: %s", p.GetName(), p.GetRestarts(), p.GetLastError())
		}
	}
	tr.Stop()
	checkNone(t, tr.Binaries)
}

func list(t *testing.T, tr *harness.Tracer) []*protov1.PluginView {
	t.Helper()
	l, err := tr.API().ListPlugins(t.Context(), &protov1.ListPluginsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return l.GetPlugins()
}

func TestADiscovererThatWasFoundAndIsNoGoodIsToldAndTriedAgainWhenItsRuntimeChanges(t *testing.T) {
	tr := harness.Prepare(t, "")
	w := wanderers{t, tr}
	w.install("", "liar", "refuser")
	w.are("lie", "liar")
	w.are("once", "refuser")
	tr.SetConfig(base + w.auto(""))
	tr.Launch()
	for name, c := range map[string]struct{ state, says string }{"liar": {"degraded", "nothing to discover"}, "refuser": {"failed", "once was enough"}} {
		p := tr.WaitPlugin("discoverer", name, func(p *protov1.PluginView) bool { return p.GetState() == c.state })
		if !strings.Contains(p.GetReason(), c.says) || p.GetFound() != "at "+name {
			t.Errorf("%s is found %q and %s: %s", name, p.GetFound(), p.GetState(), p.GetReason())
		}
	}
	w.tell()
	w.are("here", "liar", "refuser")
	w.is("running", "at ", "liar", "refuser")
	w.tell("liar", "refuser")
	tr.Stop()
}

func TestAReloadHandsDiscoverersToAutoAndBackWithoutAGap(t *testing.T) {
	tr := harness.Prepare(t, "")
	w := wanderers{t, tr}
	w.install("", "one", "two")
	w.are("here", "one", "two")
	tr.SetConfig(base + "discoverer \"one\" {}\n")
	tr.Launch()
	tr.WaitPlugins()
	w.tell("one")
	one := w.pid("one")
	// whole checks that the inventory has no gap: nobody is ever without a container.
	whole := watchContainers(t, tr, "one")

	changes(t, tr, base+"discoverer \"one\" {}\n"+w.auto(""), `discoverer "auto" started`)
	w.is("running", "at two", "two")
	if p := tr.WaitPlugin("discoverer", "one", func(p *protov1.PluginView) bool { return p.GetState() == "running" }); p.GetFound() != "" || p.GetPid() != one {
		t.Errorf("the one that the file names is found at %q, and has process %d after %d", p.GetFound(), p.GetPid(), one)
	}
	two := w.pid("two")
	// To auto, and back, as it is.
	changes(t, tr, base+w.auto(""), `discoverer "one" changed it is no longer named`)
	w.is("running", "at one", "one")
	changes(t, tr, base+"discoverer \"one\" {}\n"+w.auto(""), `discoverer "one" changed it was found, and is named now`)
	if p := w.pid("one"); p != one {
		t.Errorf("it has another process: %d after %d", p, one)
	}
	// With other arguments there is another process, beside the old one till it works.
	changes(t, tr, base+"discoverer \"one\" {}\ndiscoverer \"two\" { says = \"yes\" }\n"+w.auto(""), `discoverer "two" replaced it was found, and is named now`)
	w.tell("one", "two-yes")
	changes(t, tr, base+"discoverer \"one\" {}\n"+w.auto(""), `discoverer "two" replaced it is no longer named`)
	w.tell("one", "two")
	w.is("running", "at two", "two")
	if p := w.pid("two"); p == two {
		t.Error("it has the same process after all that")
	}
	two = w.pid("two")
	// Its own arguments.
	changes(t, tr, base+"discoverer \"one\" {}\n"+w.auto("grace = \"1s\""), `discoverer "auto" changed`)
	if p := w.pid("two"); p != two {
		t.Error("a plugin has another process because of the grace")
	}
	changes(t, tr, base+"discoverer \"one\" {}\n"+w.auto("plugin { memory = \"64MiB\" }"), `discoverer "two" replaced`, `discoverer "auto" changed`)
	changes(t, tr, base+"discoverer \"one\" {}\n"+w.auto("", "two"), `discoverer "two" stopped`, `discoverer "auto" changed`)
	w.tell("one")
	changes(t, tr, base+"discoverer \"one\" {}\n"+w.auto(""), `discoverer "auto" changed`)
	w.tell("one", "two")
	// One that the file does not name any more, and whose runtime has gone, has its grace.
	w.are("", "one")
	changes(t, tr, base+w.auto("grace = \"1s\""), `discoverer "one" changed it is no longer named`, `discoverer "auto" changed`)
	whole()
	w.is("absent", "no one", "one")
	w.tell("two")
	// What is installed later is found by the next reload.
	w.install("", "three")
	w.are("here", "three")
	changes(t, tr, base+w.auto("grace = \"1s\""))
	w.tell("two", "three")
	// A mistake changes nothing.
	before := pidsOf(t, tr)
	tr.SetConfig(base + w.auto("grace = 1"))
	if _, stderr, status := reload(t, tr); status != 1 || !strings.Contains(stderr, "Missing unit") {
		t.Errorf("status %d: %s", status, stderr)
	}
	if now := pidsOf(t, tr); !maps.Equal(now, before) {
		t.Errorf("the processes are %v after %v", now, before)
	}
	// And at last without it.
	changes(t, tr, base, `discoverer "two" stopped`, `discoverer "three" stopped`, `discoverer "auto" stopped`)
	w.tell()
	if all := list(t, tr); len(all) != 1 {
		t.Errorf("left are %v", all)
	}
	tr.Stop()
}

// watchContainers watches until it is told to end that a container of a name is known all
// the time.
func watchContainers(t *testing.T, tr *harness.Tracer, name string) (end func()) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			known := slices.ContainsFunc(tr.Containers(), func(c *protov1.ContainerView) bool { return c.GetContainer().GetName() == name && !c.GetStale() })
			if !known {
				done <- fmt.Errorf("container %s was not known at a time", name)
				return
			}
		}
	}()
	return func() {
		t.Helper()
		close(stop)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// pidsOf are the processes of the plugins that run.
func pidsOf(t *testing.T, tr *harness.Tracer) map[string]uint32 {
	t.Helper()
	out := map[string]uint32{}
	for _, p := range list(t, tr) {
		if p.GetPid() != 0 {
			out[p.GetName()] = p.GetPid()
		}
	}
	return out
}

func TestWithALockFileAutoStartsOnlyWhatIsLocked(t *testing.T) {
	tr := harness.Prepare(t, "")
	w := wanderers{t, tr}
	w.install("", "locked", "altered")
	w.are("here", "locked", "altered")
	tr.SetConfig(base + w.auto(""))
	cli := func(want string, status int, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), tr.Binaries.Tracer, append(args, tr.Config)...).CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) || (err != nil) != (status != 0) || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, want status %d and %q:\n%s", strings.Join(args, " "), err, status, want, out)
		}
	}
	cli("locked", 0, "plugin", "lock", "--config")
	w.install("", "new")
	w.are("here", "new")
	manifest := filepath.Join(tr.Dir, "plugins", "discoverer", "altered.plugin.hcl")
	text, err := os.ReadFile(manifest)
	if err == nil {
		err = os.WriteFile(manifest, append(text, "# altered\n"...), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	cli("its manifest is locked", 1, "plugin", "verify", "--config")
	cli("changed", 1, "plugin", "lock", "--check", "--config")
	cli("is valid", 0, "validate")
	tr.Launch()
	w.is("running", "at locked", "locked")
	w.is("skipped", "it is not in the lock file", "new")
	w.is("skipped", "it is not what the lock file", "altered")
	w.tell("locked")
	cli("is written", 0, "plugin", "lock", "--config")
	changes(t, tr, base+w.auto(""))
	w.is("running", "at ", "locked", "new", "altered")
	tr.Stop()
}

func TestThePlanShowsWhatAutoWouldStartNow(t *testing.T) {
	tr := harness.Prepare(t, "")
	w := wanderers{t, tr}
	w.install("", "here", "absent", "needy", "a-crash")
	w.install("auto { fallback = true }", "last")
	w.are("here", "here", "needy")
	w.are("crash", "a-crash")
	tr.SetConfig(base + w.auto(""))
	out, err := exec.CommandContext(t.Context(), tr.Binaries.Tracer, "plan", "--config", tr.Config).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"discoverer \"here\": version 1", "  found:        at here\n", "discoverer \"auto\" looks for:\n",
		"  absent: absent: no absent\n", "  here: found: at here\n", "  last: absent: no last\n", "  needy: skipped: it needs arguments (\"says\")",
		"  a-crash: unknown: plugin discoverer/a-crash: ",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the plan has no %q", want)
		}
	}
	if strings.Contains(string(out), "discoverer \"absent\":") || strings.Contains(string(out), "discoverer \"last\":") {
		t.Error("the plan has what would not be started")
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
	w.are("", "here")
	if out, err = exec.CommandContext(t.Context(), tr.Binaries.Tracer, "plan", "--config", tr.Config).CombinedOutput(); err != nil || !strings.Contains(string(out), "  found:        nothing else is here\n") || !strings.Contains(string(out), "  last: fallback: nothing else is here\n") {
		t.Errorf("with nothing here: %v\n%s", err, out)
	}
}
