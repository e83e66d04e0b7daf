package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// askJSON asks the running daemon by the command line.
func askJSON[T any](t *testing.T, tr *harness.Tracer, args ...string) (out T) {
	t.Helper()
	text := tr.Ask(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("read what %q printed: %v in %s", args, err, text)
	}
	return out
}

func TestTheCommandLineTellsWhatARunningDaemonKnows(t *testing.T) {
	programs := load.Build(t)
	d := dockerd(t)
	tr := harness.Start(t, withDocker(d, `mesh "generic" {}`))
	mine := tag()
	name := strings.Trim(mine, ":")
	id := d.Run(t, "--detach", "--name", name, "--label", "team=tracing", env.BusyboxImage, "sleep", "1000")
	remove(t, d, id)
	tr.WaitContainer(id)

	t.Run("containers", func(t *testing.T) {
		type view struct {
			Container struct {
				ID, Name, Runtime string
				Image             struct{ Name, Tag string }
				Labels            map[string]string
			}
			Sources   []string
			Stale     bool
			CgroupIDs []uint64 `json:"cgroup_ids"`
		}
		check := func(v view) {
			t.Helper()
			c := v.Container
			if c.Name != name || c.Image.Name != busyboxName || c.Image.Tag != "test" || c.Runtime != "docker" ||
				c.Labels["team"] != "tracing" || v.Stale || !slices.Equal(v.Sources, []string{"docker"}) || len(v.CgroupIDs) == 0 {
				t.Errorf("the container is %+v", v)
			}
		}
		found := 0
		for _, v := range askJSON[[]view](t, tr, "get", "containers") {
			if v.Container.ID == id {
				found++
				check(v)
			}
		}
		if found != 1 {
			t.Errorf("the container is told %d times", found)
		}
		pid, err := d.CLI(t.Context(), "inspect", "--format", "{{.State.Pid}}", id)
		if err != nil {
			t.Fatal(err)
		}
		byPID := askJSON[[]view](t, tr, "get", "containers", "--pid", pid)
		if len(byPID) != 1 || byPID[0].Container.ID != id {
			t.Errorf("process %s is of %+v", pid, byPID)
		}
		own := tr.Command("get", "containers", "--pid", strconv.Itoa(os.Getpid()))
		if out, err := own.CombinedOutput(); err == nil || own.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "no container") {
			t.Errorf("of this process, which is in no container, it says %q (%v)", out, err)
		}
		if table := tr.Ask("get", "containers"); !regexp.MustCompile(`(?m)^` + id[:12] + ` +` + name + ` +` + busyboxName + `:test +docker +running `).MatchString(table) {
			t.Errorf("the table is\n%s", table)
		}
	})

	t.Run("plugins", func(t *testing.T) {
		type view struct {
			Kind, Name, State string
			PID               int
			Restarts          int
		}
		states := map[string]view{}
		for _, p := range askJSON[[]view](t, tr, "get", "plugins") {
			states[p.Kind+" "+p.Name] = p
			if p.PID != tr.PluginPID(p.Kind, binaryOf(p.Name)) || p.State != "running" || p.Restarts != 0 {
				t.Errorf("the plugin is %+v, its process %d", p, tr.PluginPID(p.Kind, binaryOf(p.Name)))
			}
		}
		if len(states) != 3 {
			t.Errorf("the plugins are %v", states)
		}
		if table := tr.Ask("get", "plugins"); !regexp.MustCompile(`(?m)^discoverer +docker +\S+ +running `).MatchString(table) {
			t.Errorf("the table is\n%s", table)
		}
	})

	t.Run("stats", func(t *testing.T) {
		did, err := programs.RunExec(t.Context(), "-n", "500", "-a", mine+"stats", programs.Noop)
		if err != nil {
			t.Fatal(err)
		}
		tr.UntilCount(500, "process.exec", having(mine+"stats"))
		stats := askJSON[struct {
			Node   string
			Kernel []struct {
				Kind                                   string
				Seen, Kept, SampledOut, Filtered, Lost int64
			}
			Attribution struct{ Containers int64 }
			Policy      struct{ Source string }
			Probes      []struct{ Name, State string }
		}](t, tr, "get", "stats")
		var execs int64
		for _, row := range stats.Kernel {
			if row.Kind == "process.exec" {
				execs += row.Kept
			}
		}
		if stats.Node != "e2e" || execs < did.Execs || stats.Attribution.Containers < 1 || stats.Policy.Source != "fixed" {
			t.Errorf("the stats are %+v", stats)
		}
		for _, p := range stats.Probes {
			if p.State != "attached" {
				t.Errorf("probe %s is %s", p.Name, p.State)
			}
		}
		if table := tr.Ask("get", "stats"); !strings.Contains(table, "node e2e, pid "+strconv.Itoa(tr.PID())) || !strings.Contains(table, "process.exec ") {
			t.Errorf("the table is\n%s", table)
		}
	})

	t.Run("events, the same lines as in the file", func(t *testing.T) {
		const n = 5
		watch := tr.Command("get", "events", "-n", strconv.Itoa(n), "--kind", "process.exec", "--container", name)
		out, err := watch.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		watch.Stderr = os.Stderr
		if err := watch.Start(); err != nil {
			t.Fatal(err)
		}
		// There is no telling when it has begun to watch: make events until it is full.
		made, full := make(chan error), make(chan struct{})
		go func() {
			for {
				_, err := d.CLI(t.Context(), "exec", id, "/bin/noop", mine+"watched")
				select {
				case <-full:
					made <- nil
					return
				default:
				}
				if err != nil {
					made <- err
					return
				}
			}
		}()
		var lines []string
		for s := bufio.NewScanner(out); s.Scan(); {
			lines = append(lines, s.Text())
		}
		close(full)
		if err := watch.Wait(); err != nil {
			t.Error(err)
		}
		if err := <-made; err != nil {
			t.Fatal(err)
		}
		if len(lines) != n {
			t.Errorf("%d events were shown, want %d", len(lines), n)
		}
		for _, line := range lines {
			e, err := harness.Parse([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind != "process.exec" || e.Container == nil || e.Container.ID != id {
				t.Errorf("this was not asked for: %s", line)
			}
			tr.Until("the line in the file", func(events []harness.Event) bool {
				return slices.ContainsFunc(events, func(e harness.Event) bool { return timeless(e.Line) == timeless(line) })
			})
		}
	})

	t.Run("its version", func(t *testing.T) {
		if v := tr.Ask("version"); !strings.Contains(v, "daemon") {
			t.Errorf("the versions are %s", v)
		}
	})

	ledger := tr.Stop()
	checkLedger(t, ledger, false, map[string]int64{"process.exec": 500})
	cmd := tr.Command("get", "plugins")
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), tr.Socket) {
		t.Errorf("about a daemon that is gone it says %q (%v)", out, err)
	}
}

// timeless is a line without its time: each exporter tells the wall clock by a reading of
// its own, so that two may differ by some nanoseconds.
func timeless(line string) string {
	_, rest, _ := strings.Cut(line, `"kind":`)
	return rest
}

// binaryOf is the binary of a plugin: one may have several names.
func binaryOf(plugin string) string {
	if plugin == "fixed" {
		return "threshold"
	}
	return plugin
}

func TestTheMetricsAgreeWithTheLedger(t *testing.T) {
	programs := load.Build(t)
	d := dockerd(t)
	address := freeAddress(t)
	tr := harness.Start(t, withDocker(d, fmt.Sprintf("exporter \"prometheus\" { listen = %q }", address)))
	mine := tag()
	did, err := programs.RunExec(t.Context(), "-n", "1000", "-a", mine, programs.Noop)
	if err != nil {
		t.Fatal(err)
	}
	d.Run(t, "--rm", env.NoopImage, mine)
	tr.UntilCount(1, "process.exec", inside(mine))
	tr.UntilCount(1000, "process.exec", having(mine))

	before, after := scrape(t, address), scrape(t, address)
	stats := tr.Stats()
	ledger := tr.Stop()
	for _, kind := range []string{"process.fork", "process.exec", "process.exit"} {
		sum := func(m metrics, name string) (sum float64) {
			for _, s := range m[name] {
				if s.labels["kind"] == kind {
					sum += s.value
				}
			}
			return sum
		}
		seen := sum(before, "ebpf_tracer_events_seen_total")
		var outcomes float64
		for _, name := range []string{"kept", "sampled_out", "filtered", "lost"} {
			outcomes += sum(before, "ebpf_tracer_events_"+name+"_total")
		}
		if seen < outcomes || seen < float64(did.Execs) {
			t.Errorf("%s: seen %v, outcomes %v, the load made %d", kind, seen, outcomes, did.Execs)
		}
		if later := sum(after, "ebpf_tracer_events_seen_total"); later < seen {
			t.Errorf("%s: seen %v, and %v later", kind, seen, later)
		}
		if last := ledger.Kind(kind).Seen; float64(last) < seen {
			t.Errorf("%s: the metrics have %v seen, the ledger at the end %d", kind, seen, last)
		}
	}
	for _, want := range []struct {
		name   string
		labels map[string]string
		is     func(float64) bool
	}{
		{"ebpf_tracer_build_info", nil, func(v float64) bool { return v == 1 }},
		{"ebpf_tracer_plugin_state", map[string]string{"kind": "discoverer", "name": "docker", "state": "running"}, func(v float64) bool { return v == 1 }},
		{"ebpf_tracer_plugin_state", map[string]string{"kind": "discoverer", "name": "docker", "state": "failed"}, func(v float64) bool { return v == 0 }},
		{"ebpf_tracer_plugin_restarts_total", map[string]string{"kind": "discoverer", "name": "docker"}, func(v float64) bool { return v == 0 }},
		{"ebpf_tracer_probe_state", map[string]string{"probe": "process", "state": "attached"}, func(v float64) bool { return v == 1 }},
		{"ebpf_tracer_policy_info", map[string]string{"source": "fixed"}, func(v float64) bool { return v == 1 }},
		{"ebpf_tracer_exporter_exported_events_total", map[string]string{"exporter": "json"}, func(v float64) bool { return v >= float64(did.Execs) }},
		{"ebpf_tracer_exporter_failed_events_total", map[string]string{"exporter": "json"}, func(v float64) bool { return v == 0 }},
		{"ebpf_tracer_attributed_events_total", map[string]string{"to": "container"}, func(v float64) bool { return v > 0 }},
		{"process_resident_memory_bytes", nil, func(v float64) bool { return v > 1<<20 }},
		{"process_cpu_seconds_total", nil, func(v float64) bool { return v > 0 }},
	} {
		found := before.find(want.name, want.labels)
		if len(found) == 0 || !want.is(found[0].value) {
			t.Errorf("%s%v is %v", want.name, want.labels, found)
		}
	}
	if got := float64(stats.GetAttribution().GetContainer()); before.find("ebpf_tracer_attributed_events_total", map[string]string{"to": "container"})[0].value > got {
		t.Errorf("the metrics have more events of containers than the stats after them, %v", got)
	}
	checkLedger(t, ledger, false, map[string]int64{"process.fork": did.Forks, "process.exec": did.Execs + 1, "process.exit": did.Exits})
}

// metrics are the samples of one scrape by their family's name.
type metrics map[string][]sample

type sample struct {
	labels map[string]string
	value  float64
}

func (m metrics) find(name string, labels map[string]string) (out []sample) {
	for _, s := range m[name] {
		matches := true
		for k, v := range labels {
			matches = matches && s.labels[k] == v
		}
		if matches {
			out = append(out, s)
		}
	}
	return out
}

// scrape reads the metrics as Prometheus does.
func scrape(t *testing.T, address string) metrics {
	t.Helper()
	out := metrics{}
	for name, family := range scrapeFamilies(t, address) {
		for _, m := range family.GetMetric() {
			s := sample{labels: map[string]string{}, value: valueOf(family.GetType(), m)}
			for _, l := range m.GetLabel() {
				s.labels[l.GetName()] = l.GetValue()
			}
			out[name] = append(out[name], s)
		}
	}
	return out
}

func valueOf(kind dto.MetricType, m *dto.Metric) float64 {
	switch kind {
	case dto.MetricType_COUNTER:
		return m.GetCounter().GetValue()
	case dto.MetricType_GAUGE:
		return m.GetGauge().GetValue()
	case dto.MetricType_HISTOGRAM:
		return float64(m.GetHistogram().GetSampleCount())
	}
	return m.GetUntyped().GetValue()
}

// freeAddress is an address of the loopback that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
