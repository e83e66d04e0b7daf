package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// moody puts the plugin that a reload exchanges, of some kinds, into the directory
// that the configuration of tr names for plugins. What is there is replaced as an
// installer does it, by a rename.
func moody(t *testing.T, tr *harness.Tracer, temper, version string, kinds ...string) {
	t.Helper()
	program, err := buildMoody()
	if err != nil {
		t.Fatal(err)
	}
	program = append(slices.Clone(program), version...) // another file, which does the same
	for _, kind := range kinds {
		dir := filepath.Join(tr.Dir, "plugins", kind)
		manifest := fmt.Sprintf("plugin %q \"moody\" {\n  protocol = 1\n  command  = [\"./moody\", %q, %q, %q]\n}\n", kind, kind, version, temper)
		err := errors.Join(os.MkdirAll(dir, 0o755),
			os.WriteFile(filepath.Join(dir, "moody.plugin.hcl"), []byte(manifest), 0o644),
			os.WriteFile(filepath.Join(dir, ".new"), program, 0o755),
			os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, "moody")))
		if err != nil {
			t.Fatal(err)
		}
	}
}

var buildMoody = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "moody-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "moody")
	if text, err := exec.Command("go", "build", "-o", program, "./testdata/moody").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the plugin: %w\n%s", err, text)
	}
	return os.ReadFile(program)
})

// reload runs the command and returns what it printed, and its exit status.
func reload(t *testing.T, tr *harness.Tracer) (stdout, stderr string, status int) {
	t.Helper()
	var out, wrong bytes.Buffer
	began := time.Now()
	cmd := tr.Command("reload")
	cmd.Stdout, cmd.Stderr = &out, &wrong
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	t.Logf("reload took %v: %s%s", time.Since(began).Round(time.Millisecond), out.String(), wrong.String())
	return out.String(), wrong.String(), cmd.ProcessState.ExitCode()
}

// changes writes a configuration, reloads, and checks that exactly the changes
// wanted, "WHAT ACTION", came of it, and that nothing went wrong.
func changes(t *testing.T, tr *harness.Tracer, hcl string, want ...string) {
	t.Helper()
	tr.SetConfig(hcl)
	stdout, stderr, status := reload(t, tr)
	if status != 0 || stderr != "" {
		t.Fatalf("the reload ended with status %d: %s", status, stderr)
	}
	checkChanges(t, stdout, want...)
}

func checkChanges(t *testing.T, stdout string, want ...string) {
	t.Helper()
	var got []string
	for line := range strings.Lines(stdout) {
		if !strings.HasPrefix(line, "WHAT") && !strings.HasPrefix(line, "nothing has changed") {
			got = append(got, strings.Join(strings.Fields(line), " "))
		}
	}
	ok := len(got) == len(want)
	for i := range want {
		ok = ok && strings.HasPrefix(got[i], want[i])
	}
	if !ok {
		t.Errorf("the changes are %q, want %q", got, want)
	}
}

// pids are those of the plugins, by kind and name.
func pids(t *testing.T, tr *harness.Tracer) map[string]uint32 {
	t.Helper()
	list, err := tr.API().ListPlugins(t.Context(), &protov1.ListPluginsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]uint32{}
	for _, p := range list.GetPlugins() {
		if p.GetPid() == 0 {
			t.Errorf("plugin %s is %s: %s", p.GetName(), p.GetState(), p.GetReason())
		}
		out[strings.ToLower(strings.TrimPrefix(p.GetKind().String(), "KIND_"))+" "+p.GetName()] = p.GetPid()
	}
	return out
}

// differ are the plugins whose pid is another one than before.
func differ(before, after map[string]uint32) (names []string) {
	for name, pid := range after {
		if before[name] != pid {
			names = append(names, name)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// rounds is a load of 2,000 execs a second until it is stopped.
type rounds struct {
	prefix string
	stop   chan struct{}
	did    chan []load.ExecCounts
	failed error
}

func startRounds(t *testing.T, p *load.Programs) *rounds {
	t.Helper()
	r := &rounds{prefix: tag(), stop: make(chan struct{}), did: make(chan []load.ExecCounts, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() {
		var did []load.ExecCounts
		for done := false; !done && r.failed == nil; {
			select {
			case <-r.stop:
				done = true // after one more round
			default:
			}
			var c load.ExecCounts
			c, r.failed = p.RunExec(ctx, "-n", "1000", "-r", "2000", "-p", "2", "-a", r.round(len(did)), p.Noop)
			did = append(did, c)
		}
		r.did <- did
	}()
	return r
}

func (r *rounds) round(n int) string { return fmt.Sprintf("%s%d:", r.prefix, n) }

// end stops the load and gives its counts.
func (r *rounds) end(t *testing.T) []load.ExecCounts {
	t.Helper()
	close(r.stop)
	did := <-r.did
	if r.failed != nil {
		t.Fatal(r.failed)
	}
	return did
}

func TestEachExecIsToldOnceThroughReloads(t *testing.T) {
	p := load.Build(t)
	tr := harness.Prepare(t, "")
	moody(t, tr, "well", "1", "discoverer", "mesh")
	const base = "plugins { dirs = [\"@DIR@/plugins\"] }\nmesh \"generic\" {}\n"
	const process, both = "probe \"process\" {}\n", "discoverer \"moody\" { says = \"two\" }\nmesh \"moody\" { says = \"nice\" }\n"
	tr.SetConfig(base + process + "discoverer \"moody\" { says = \"one\" }\nmesh \"moody\" { says = \"nice\" }\n")
	tr.Launch()
	tr.WaitPlugins()
	container := func(want string) {
		t.Helper()
		eventually(t, "the container", func() error {
			all := tr.Containers()
			got := []string{}
			for _, c := range all {
				got = append(got, c.GetContainer().GetName()+" in "+c.GetMesh().GetMesh())
				if c.GetStale() {
					got = append(got, "stale")
				}
			}
			if strings.Join(got, ", ") != want {
				return fmt.Errorf("known are %q, want %q", got, want)
			}
			return nil
		})
	}
	container("one in nice")
	started := pids(t, tr)
	loaded := startRounds(t, p)

	// What did not change is not touched.
	before := pids(t, tr)
	changes(t, tr, base+both+process, `discoverer "moody" replaced`)
	if got := differ(before, pids(t, tr)); !slices.Equal(got, []string{"discoverer moody"}) {
		t.Errorf("%v have another process", got)
	}
	container("two in nice")

	// A mistake in the file changes nothing.
	before = pids(t, tr)
	tr.SetConfig(base + process + "discoverer \"moody\" { says = \"three\" }\nlog { level = \"inf\" }\nmesh \"moody\" { speaks = 1 }\n")
	_, stderr, status := reload(t, tr)
	if status != 1 || !strings.Contains(stderr, "config.hcl:5:15: Error: Value not allowed") || !strings.Contains(stderr, "config.hcl:6:16: Error:") {
		t.Errorf("a wrong file: status %d, %s", status, stderr)
	}
	if got := differ(before, pids(t, tr)); got != nil {
		t.Errorf("%v have another process", got)
	}
	container("two in nice")

	// A plugin that can't be built any more: the old one goes on.
	moody(t, tr, "broken", "2", "discoverer")
	tr.SetConfig(base + both + process)
	stdout, stderr, status := reload(t, tr)
	if status != 1 || !strings.Contains(stdout, "bad mood") || !strings.Contains(stderr, `discoverer "moody"`) {
		t.Errorf("a plugin that can't be built: status %d, %s", status, stderr)
	}
	checkChanges(t, stdout, `discoverer "moody" kept`)
	// One that does not even start is refused at its place.
	moody(t, tr, "dead", "2", "discoverer")
	_, stderr, status = reload(t, tr)
	if status != 1 || !strings.Contains(stderr, "config.hcl:3:12: Error: Plugin can't be used") || !strings.Contains(stderr, "does not want to live") {
		t.Errorf("a plugin that does not start: status %d, %s", status, stderr)
	}
	if got := differ(before, pids(t, tr)); got != nil {
		t.Errorf("%v have another process", got)
	}
	// And one that works takes over.
	moody(t, tr, "well", "3", "discoverer")
	changes(t, tr, base+both+process, `discoverer "moody" replaced`)
	tr.WaitPlugin("discoverer", "moody", func(p *protov1.PluginView) bool { return p.GetVersion() == "3" && p.GetState() == "running" })
	if got := differ(before, pids(t, tr)); !slices.Equal(got, []string{"discoverer moody"}) {
		t.Errorf("%v have another process", got)
	}

	// Probes come and go.
	file := filepath.Join(tr.Dir, "opened")
	opens := func(n int) {
		t.Helper()
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := p.RunOpen(t.Context(), "-n", fmt.Sprint(n), file); err != nil {
			t.Fatal(err)
		}
	}
	before = pids(t, tr)
	changes(t, tr, base+both+process+"probe \"file\" {}\n", `probe "file" attached`)
	opens(100)
	changes(t, tr, base+both+process, `probe "file" detached`)
	opens(10)
	changes(t, tr, base+both+process)

	// What needs a start waits for it.
	changes(t, tr, base+both+process+"kernel { ring_size = \"1MiB\" }\nresources {}\nlog { format = \"json\" }\n", "log changed", "kernel kept it takes effect at the next start", "resources kept it takes effect at the next start")
	if !strings.Contains(tr.Log(), `"msg":"the configuration was reloaded"`) {
		t.Error("the log is not in JSON")
	}
	if got := differ(before, pids(t, tr)); got != nil {
		t.Errorf("%v have another process", got)
	}

	// The signal does the same; what is not wanted any more ends, and what it told.
	tr.SetConfig(base + process + "discoverer \"moody\" { says = \"two\" }\n")
	tr.Signal(syscall.SIGHUP)
	eventually(t, "the end of the detector", func() error {
		if now := pids(t, tr); len(now) != len(before)-1 {
			return fmt.Errorf("the plugins are %v", now)
		}
		return nil
	})
	container("two in ")
	changes(t, tr, base+process, `discoverer "moody" stopped`)
	container("")
	changes(t, tr, base+process+both, `discoverer "moody" started`, `mesh "moody" started`)
	container("two in nice")

	did := loaded.end(t)
	if now := pids(t, tr); now["mesh generic"] != started["mesh generic"] || now["sampler fixed"] != started["sampler fixed"] {
		t.Errorf("plugins that nobody changed have other processes: %v, had %v", now, started)
	}
	ledger := tr.Stop()
	var all load.ExecCounts
	events := tr.Events()
	for n, c := range did {
		checkOnce(t, events, loaded.round(n), c)
		all.Execs += c.Execs
		all.Forks += c.Forks
		all.Exits += c.Exits
	}
	t.Logf("%d execs in %d rounds", all.Execs, len(did))
	checkSeen(t, ledger, all)
	opened := harness.Select(events, "file.open", func(e *harness.Event) bool { return e.File != nil && e.File.Path == file })
	if got := len(slices.DeleteFunc(opened, func(e *harness.Event) bool { return e.Process.Comm != "openload" })); got != 100 {
		t.Errorf("%d opens were told, 100 were made while the probe was there", got)
	}
}

func TestAReloadExchangesTheSamplerWithoutLosingCount(t *testing.T) {
	const n = 3000
	p := load.Build(t)
	tr := harness.Prepare(t, "")
	moody(t, tr, "broken", "1", "sampler")
	const base = "plugins { dirs = [\"@DIR@/plugins\"] }\nprobe \"process\" {}\n"
	tr.SetConfig(base + "sampler \"fixed\" { rate = 1 }")
	tr.Launch()
	tr.WaitPlugins()

	type phase struct {
		prefix string
		rate   float64
		did    load.ExecCounts
	}
	var phases []phase
	// The policy in force, by the sampler's name, and then a load under it.
	under := func(sampler string, rate float64) {
		t.Helper()
		eventually(t, "the policy of sampler "+sampler, func() error {
			s := tr.Stats()
			for _, row := range s.GetKernel() {
				if row.GetKind() == "process.exec" && row.GetPriority() == "info" && math.Abs(row.GetProbability()-rate) < 1e-9 && s.GetPolicy().GetSource() == sampler {
					return nil
				}
			}
			return fmt.Errorf("in force is %v", s.GetPolicy())
		})
		prefix := tag()
		did, err := p.RunExec(t.Context(), "-n", fmt.Sprint(n), "-p", "2", "-a", prefix, p.Noop)
		if err != nil {
			t.Fatal(err)
		}
		phases = append(phases, phase{prefix, rate, did})
	}
	if _, err := p.RunExec(t.Context(), "-n", "1", p.Noop); err != nil { // a row to look at
		t.Fatal(err)
	}
	under("fixed", 1)
	changes(t, tr, base+"sampler \"fixed\" { rate = 0.5 }", `sampler "fixed" replaced`)
	under("fixed", 0.5)

	// Another sampler that can't be built: the old one goes on.
	before := pids(t, tr)
	tr.SetConfig(base + "sampler \"moody\" {}")
	stdout, stderr, status := reload(t, tr)
	if status != 1 || !strings.Contains(stdout, "bad mood") {
		t.Errorf("a sampler that can't be built: status %d, %s", status, stderr)
	}
	checkChanges(t, stdout, `sampler "fixed" kept sampler "moody" can't take its place`)
	if now := pids(t, tr); !maps.Equal(before, now) {
		t.Errorf("the plugins are %v, were %v", now, before)
	}
	under("fixed", 0.5)

	moody(t, tr, "well", "2", "sampler")
	changes(t, tr, base+"sampler \"moody\" {}", `sampler "moody" started`, `sampler "fixed" stopped`)
	if now := slices.Collect(maps.Keys(pids(t, tr))); !slices.Equal(now, []string{"sampler moody"}) {
		t.Errorf("the plugins are %v", now)
	}
	under("moody", 0.2)
	changes(t, tr, base+"sampler \"fixed\" { rate = 1 }", `sampler "fixed" started`, `sampler "moody" stopped`)
	under("fixed", 1)

	ledger := tr.Stop()
	events := tr.Events()
	var execs int64
	for _, x := range phases {
		execs += x.did.Execs
		found := harness.Select(events, "process.exec", func(e *harness.Event) bool {
			return e.Process.Executable.Path == p.Noop && len(e.Process.Args) > 1 && strings.HasPrefix(e.Process.Args[1], x.prefix)
		})
		sum := 0.0
		for _, e := range found {
			if math.Abs(e.Weight-1/x.rate) > 1e-6 {
				t.Fatalf("at %v the weight is %v: %s", x.rate, e.Weight, e.Line)
			}
			sum += e.Weight
		}
		// Six standard deviations of the sum of the weights; see the tests of sampling.
		bound := 6 * math.Sqrt(n*(1-x.rate)/x.rate)
		t.Logf("at %v: %d of %d kept, which stand for %.0f", x.rate, len(found), x.did.Execs, sum)
		if math.Abs(sum-float64(x.did.Execs)) > bound {
			t.Errorf("at %v the weights sum up to %v, more than %.0f off %d", x.rate, sum, bound, x.did.Execs)
		}
	}
	if c := ledger.Kind("process.exec"); c.Seen < execs || c.Kept+c.SampledOut != c.Seen-c.Filtered {
		t.Errorf("the ledger of execs is %+v, the load alone made %d", c, execs)
	}
}

func TestAReloadTakesOverOnlyWhatTheLockHas(t *testing.T) {
	tr := harness.Prepare(t, "")
	moody(t, tr, "well", "1", "discoverer")
	const hcl = "plugins { dirs = [\"@DIR@/plugins\"] }\nprobe \"process\" {}\ndiscoverer \"moody\" {}\n"
	tr.SetConfig(hcl)
	lock := func() {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), tr.Binaries.Tracer, "plugin", "lock", "--config", tr.Config).CombinedOutput(); err != nil {
			t.Fatalf("lock: %v\n%s", err, out)
		}
	}
	lock()
	tr.Launch()
	tr.WaitPlugins()
	before := pids(t, tr)
	program := filepath.Join(tr.Dir, "plugins", "discoverer", "moody")
	locked := sha(t, program)
	moody(t, tr, "well", "2", "discoverer")
	_, stderr, status := reload(t, tr)
	if status != 1 || !strings.Contains(stderr, "config.hcl:3:12: Error: Plugin not as locked") ||
		!strings.Contains(stderr, locked) || !strings.Contains(stderr, sha(t, program)) {
		t.Errorf("status %d: %s", status, stderr)
	}
	if got := differ(before, pids(t, tr)); got != nil {
		t.Errorf("%v have another process", got)
	}
	lock()
	changes(t, tr, hcl, `discoverer "moody" replaced`)
	if got := differ(before, pids(t, tr)); !slices.Equal(got, []string{"discoverer moody"}) {
		t.Errorf("%v have another process", got)
	}
	tr.Stop()
}

func TestADaemonEndsInTimeDuringAReload(t *testing.T) {
	tr := harness.Prepare(t, "")
	moody(t, tr, "well", "1", "discoverer")
	const base = "plugins { dirs = [\"@DIR@/plugins\"] }\nprobe \"process\" {}\n"
	tr.SetConfig(base + "discoverer \"moody\" { says = \"one\" }")
	tr.Launch()
	tr.WaitPlugins()
	var asking []*exec.Cmd
	for i := range 3 { // one is under way, the others wait
		tr.SetConfig(fmt.Sprintf("%sprobe \"file\" {}\nprobe \"network\" {}\ndiscoverer \"moody\" { says = \"%d\" }", base, i))
		cmd := tr.Command("reload")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		asking = append(asking, cmd)
	}
	eventually(t, "the first reload", func() error {
		if !strings.Contains(tr.Log(), "plugin was replaced") {
			return errors.New("no plugin was replaced yet")
		}
		return nil
	})
	tr.Stop()
	for _, cmd := range asking {
		_ = cmd.Wait() // with whatever status: it was answered or not
	}
	checkNone(t, tr.Binaries)
}
