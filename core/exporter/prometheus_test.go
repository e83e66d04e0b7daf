package exporter

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// figures is a Source of fixed numbers.
type figures struct {
	stats   *protov1.Stats
	plugins []*protov1.PluginView
	err     error
	slow    chan struct{} // Stats waits for it
	asked   chan struct{}
}

func (f *figures) Plugins() []*protov1.PluginView { return f.plugins }
func (f *figures) NamespaceCounts() map[string]uint64 {
	return map[string]uint64{"pid": 3, "time": 0}
}
func (f *figures) Stats() (*protov1.Stats, error) {
	if f.slow != nil {
		close(f.asked)
		<-f.slow
	}
	return f.stats, f.err
}

func someFigures() *figures {
	cpu := 0.91
	return &figures{
		plugins: []*protov1.PluginView{{
			Kind: protov1.Kind_KIND_DISCOVERER, Name: "docker", Version: "1.0", State: "backoff",
			Restarts: 2, QueueDepth: 3, QueueDropped: 4, MemoryBytes: 5, CpuSeconds: 6.5, Refused: 7,
			SinceUnixNano: 1_500_000_000, Pid: 8, Replaced: 9, LastError: "it ended: " + strings.Repeat("é", 75) + `; it wrote last: "a secret"`,
		}},
		stats: &protov1.Stats{
			Kernel: []*protov1.LedgerRow{
				{Kind: "process.exec", Priority: "info", Seen: 100, Kept: 60, SampledOut: 30, Filtered: 8, Lost: 2, Bytes: 6000, Probability: 0.5,
					Estimate: &protov1.Estimate{Events: 58, Seen: 95, Weight: 92, Variance: 64, Low: 80, High: 110, Correction: 62.0 / 60}},
				{Kind: "process.exec", Priority: "info", Seen: 10, Kept: 10, Bytes: 1000, Probability: 1, Group: "web"},
				{Kind: "process.exit", Priority: "critical", Seen: 1, Kept: 1, Bytes: 90, Probability: 1},
			},
			Pipeline: &protov1.Pipeline{Decoded: 70, Malformed: 1, InRing: 0, Released: 68, Held: 2, SkippedRuns: 3},
			Exporters: []*protov1.ExporterStats{
				{Name: "json", Released: 68, Exported: 60, QueueDropped: 1, Failed: 2, ScopedOut: 3, Queued: 2, Bytes: 5000},
				{Name: "live", Released: 68, ScopedOut: 68},
			},
			Attribution: &protov1.Attribution{
				Host: 8, Container: 50, Pending: 10, HeldTotal: 4, HeldExpired: 1, HeldOverflow: 1, Corrected: 1,
				FirstExecs: 16, FirstExecsNamed: 15, Containers: 2, Cgroups: 20, Key: "cgroup", ByPidNamespace: 12,
				Delay: &protov1.Histogram{BoundsSeconds: []float64{0.001, 0.5}, Counts: []uint64{1, 2, 1}, SumSeconds: 1.25},
			},
			Queues:     []*protov1.QueueDepth{{Queue: "hold", Depth: 2, Capacity: 4096}},
			Policy:     &protov1.PolicyStats{Generation: 9, Source: "threshold", Swaps: 8, Refused: 1, ExpiresUnixNano: 2_500_000_000},
			Probes:     []*protov1.ProbeStats{{Name: "network", State: "partial"}},
			Faults:     map[string]uint64{"no_policy": 5},
			Discovered: &protov1.Discovered{Pods: 13, Services: 14},
			User: []*protov1.LedgerRow{
				{Kind: "user.http_request", Priority: "info", Seen: 20, Kept: 5, SampledOut: 15, Probability: 0.25,
					Estimate: &protov1.Estimate{Events: 5, Seen: 20, Weight: 20, Variance: 60, Low: 5, High: 35, Correction: 1}},
			},
			UserEvents: &protov1.UserStats{Programs: 2, EventsPerSecond: 100, Recorded: 5, Dropped: 15},
			Load: &protov1.LoadStats{
				Windows: []*protov1.LoadWindow{
					{Seconds: 1.01, SeenPerSecond: 110, KeptPerSecond: 55, FilteredPerSecond: 1, SamplingRate: 0.5, DropRate: 0.5},
					{Seconds: 59.8, SeenPerSecond: 100, KeptPerSecond: 75, SamplingRate: 0.75, DropRate: 0.25},
				},
				Budget: &protov1.BudgetStats{EventsPerSecond: 50, Use: 1.1, Seconds: 10, SecondsWithin: 9, WorstRatio: 1.2},
				Level:  &protov1.LoadLevel{Level: "high", Resource: "cpu"},
				Relief: []string{"cpu 91 %, above 80 %"}, PromotedRows: 3,
				Host:   &protov1.HostLoad{CpuUtilization: &cpu, MemoryTotalBytes: 100, MemoryAvailableBytes: 25, PressureIo: &protov1.Pressure{Some: 0.5}},
				Alerts: []*protov1.LoadAlert{{Name: "high_drop_rate", Active: true, Times: 2}},
			},
		},
	}
}

func TestMetricsKeepTheConventions(t *testing.T) {
	registry, err := newRegistry(PrometheusOptions{Name: "p", Version: "v1\xff", Log: slog.New(slog.DiscardHandler)}, someFigures())
	if err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestEveryDescribedMetricIsCollected(t *testing.T) {
	c := newCollector(someFigures())
	registry, err := newRegistry(PrometheusOptions{}, someFigures())
	if err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, f := range families {
		got[f.GetName()] = true
	}
	for _, d := range c.all {
		_, rest, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ := strings.Cut(rest, `"`)
		if !got[name] {
			t.Errorf("%s has no series", name)
		}
	}
}

func TestMetricsTellTheLedgerAndTheRest(t *testing.T) {
	want := `
# HELP ebpf_tracer_events_kept_total Events that were put into a ring, injected, or kept by a program that asked.
# TYPE ebpf_tracer_events_kept_total counter
ebpf_tracer_events_kept_total{kind="process.exec",priority="info"} 70
ebpf_tracer_events_kept_total{kind="process.exit",priority="critical"} 1
ebpf_tracer_events_kept_total{kind="user.http_request",priority="info"} 5
# HELP ebpf_tracer_sampling_probability_ratio Probability that an event is kept, as the policy in force has it.
# TYPE ebpf_tracer_sampling_probability_ratio gauge
ebpf_tracer_sampling_probability_ratio{group="",kind="process.exec",priority="info"} 0.5
ebpf_tracer_sampling_probability_ratio{group="",kind="process.exit",priority="critical"} 1
ebpf_tracer_sampling_probability_ratio{group="",kind="user.http_request",priority="info"} 0.25
ebpf_tracer_sampling_probability_ratio{group="web",kind="process.exec",priority="info"} 1
# HELP ebpf_tracer_attribution_delay_seconds How long after it happened an event that waited was released.
# TYPE ebpf_tracer_attribution_delay_seconds histogram
ebpf_tracer_attribution_delay_seconds_bucket{le="0.001"} 1
ebpf_tracer_attribution_delay_seconds_bucket{le="0.5"} 3
ebpf_tracer_attribution_delay_seconds_bucket{le="+Inf"} 4
ebpf_tracer_attribution_delay_seconds_sum 1.25
ebpf_tracer_attribution_delay_seconds_count 4
# HELP ebpf_tracer_first_execs_total First execs that were met of containers' cgroups, and of cgroups that may be a container's.
# TYPE ebpf_tracer_first_execs_total counter
ebpf_tracer_first_execs_total 16
# HELP ebpf_tracer_first_execs_named_total Those of the first execs that were released with the container's id, name and image.
# TYPE ebpf_tracer_first_execs_named_total counter
ebpf_tracer_first_execs_named_total 15
# HELP ebpf_tracer_exporter_queue_dropped_events_total Events that found no room in the exporter's queue.
# TYPE ebpf_tracer_exporter_queue_dropped_events_total counter
ebpf_tracer_exporter_queue_dropped_events_total{exporter="json"} 1
ebpf_tracer_exporter_queue_dropped_events_total{exporter="live"} 0
# HELP ebpf_tracer_plugin_state 1 for the state that the plugin is in, 0 for the others.
# TYPE ebpf_tracer_plugin_state gauge
ebpf_tracer_plugin_state{kind="discoverer",name="docker",state="backoff"} 1
ebpf_tracer_plugin_state{kind="discoverer",name="docker",state="degraded"} 0
ebpf_tracer_plugin_state{kind="discoverer",name="docker",state="failed"} 0
ebpf_tracer_plugin_state{kind="discoverer",name="docker",state="running"} 0
ebpf_tracer_plugin_state{kind="discoverer",name="docker",state="starting"} 0
ebpf_tracer_plugin_state{kind="discoverer",name="docker",state="stopped"} 0
# HELP ebpf_tracer_plugin_last_error_info 1, labelled with what is wrong with the plugin, or else why a process of it ended last; absent: nothing.
# TYPE ebpf_tracer_plugin_last_error_info gauge
ebpf_tracer_plugin_last_error_info{error="it ended: ` + strings.Repeat("é", 75) + `",kind="discoverer",name="docker"} 1
# HELP ebpf_tracer_plugin_state_since_timestamp_seconds When the plugin came into the state that it is in.
# TYPE ebpf_tracer_plugin_state_since_timestamp_seconds gauge
ebpf_tracer_plugin_state_since_timestamp_seconds{kind="discoverer",name="docker"} 1.5
# HELP ebpf_tracer_plugin_pid Process id of the plugin; 0: it has no process.
# TYPE ebpf_tracer_plugin_pid gauge
ebpf_tracer_plugin_pid{kind="discoverer",name="docker"} 8
# HELP ebpf_tracer_plugin_replacements_total How often a reload put a new process in the place of the plugin's.
# TYPE ebpf_tracer_plugin_replacements_total counter
ebpf_tracer_plugin_replacements_total{kind="discoverer",name="docker"} 9
# HELP ebpf_tracer_plugin_cpu_seconds_total CPU time of all the plugin's processes.
# TYPE ebpf_tracer_plugin_cpu_seconds_total counter
ebpf_tracer_plugin_cpu_seconds_total{kind="discoverer",name="docker"} 6.5
# HELP ebpf_tracer_policy_expiry_timestamp_seconds When the sampling policy in force ends, if it is not renewed; absent: never.
# TYPE ebpf_tracer_policy_expiry_timestamp_seconds gauge
ebpf_tracer_policy_expiry_timestamp_seconds 2.5
# HELP ebpf_tracer_attribution_by_pid_namespace_events_total Events of containers that were told by their pid namespace, since their cgroup is the host's.
# TYPE ebpf_tracer_attribution_by_pid_namespace_events_total counter
ebpf_tracer_attribution_by_pid_namespace_events_total 12
# HELP ebpf_tracer_namespaces Namespaces that containers are in now, the host's own among them.
# TYPE ebpf_tracer_namespaces gauge
ebpf_tracer_namespaces{type="pid"} 3
ebpf_tracer_namespaces{type="time"} 0
# HELP ebpf_tracer_pods Pods that are described now.
# TYPE ebpf_tracer_pods gauge
ebpf_tracer_pods 13
# HELP ebpf_tracer_services Services that are described now.
# TYPE ebpf_tracer_services gauge
ebpf_tracer_services 14
# HELP ebpf_tracer_program_faults_total What went wrong inside the kernel's programs.
# TYPE ebpf_tracer_program_faults_total counter
ebpf_tracer_program_faults_total{fault="no_policy"} 5
`
	want += wantLoad
	var names []string
	for line := range strings.Lines(want) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ := strings.Cut(rest, " ")
			names = append(names, name)
		}
	}
	if err := testutil.CollectAndCompare(newCollector(someFigures()), strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func serve(t *testing.T, f *figures) *Prometheus {
	t.Helper()
	p, err := NewPrometheus(PrometheusOptions{Name: "prometheus", Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func get(t *testing.T, p *Prometheus, path string) (int, string) {
	t.Helper()
	response, err := http.Get("http://" + p.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestMetricsAreServedOverHTTP(t *testing.T) {
	p := serve(t, someFigures())
	for _, c := range []struct {
		path string
		code int
		has  string
	}{
		{"/metrics", 200, `ebpf_tracer_events_seen_total{kind="process.exec",priority="info"} 110`},
		{"/metrics", 200, "process_resident_memory_bytes"},
		{"/metrics", 200, "process_cpu_seconds_total"},
		{"/", 200, `href="/metrics"`},
		{"/debug/pprof/", 404, ""},
	} {
		if code, body := get(t, p, c.path); code != c.code || !strings.Contains(body, c.has) {
			t.Errorf("%s: %d, without %q: %.500s", c.path, code, c.has, body)
		}
	}
}

func TestAFailingSourceLeavesTheOtherMetricsAndIsCounted(t *testing.T) {
	f := someFigures()
	f.err = errors.New("read the policy table: gone")
	p := serve(t, f)
	get(t, p, "/metrics")
	code, body := get(t, p, "/metrics")
	for _, has := range []string{
		"process_cpu_seconds_total", "ebpf_tracer_plugin_restarts_total",
		`promhttp_metric_handler_errors_total{cause="gathering"}`,
	} {
		if code != 200 || !strings.Contains(body, has) {
			t.Errorf("%d, without %s", code, has)
		}
	}
	if strings.Contains(body, "events_seen_total") || strings.Contains(body, `{cause="gathering"} 0`) {
		t.Error("the failure does not show")
	}
}

func TestAnAddressInUseIsAnErrorAtStart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = NewPrometheus(PrometheusOptions{Name: "prometheus", Listen: l.Addr().String(), Log: slog.New(slog.DiscardHandler)}, someFigures())
	if err == nil || !strings.Contains(err.Error(), "address already in use") || !strings.Contains(err.Error(), "listen = ") {
		t.Error(err)
	}
}

func TestCloseCutsOffAScrapeThatOutlivesTheDeadline(t *testing.T) {
	f := someFigures()
	f.slow, f.asked = make(chan struct{}), make(chan struct{})
	p, err := NewPrometheus(PrometheusOptions{Name: "prometheus", Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}, f)
	if err != nil {
		t.Fatal(err)
	}
	scraped := make(chan error, 1)
	go func() {
		response, err := http.Get("http://" + p.Addr().String() + "/metrics")
		if err == nil {
			err = errors.Join(errors.New("it was answered"), response.Body.Close())
			scraped <- err
			return
		}
		scraped <- nil
	}()
	<-f.asked
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := <-scraped; err != nil {
		t.Error(err)
	}
	close(f.slow)
}
