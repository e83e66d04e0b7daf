package exporter

import (
	"cmp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Source is what the metrics are read from: the same as the local API's, so that
// the two agree. Names of plugins, exporters, queues and probes are unique among
// their kind.
type Source interface {
	Plugins() []*protov1.PluginView
	// NamespaceCounts are the namespaces that containers are in, by type.
	NamespaceCounts() map[string]uint64
	Stats() (*protov1.Stats, error)
}

// States that a plugin and a probe can be in: each is a series, 1 or 0.
var (
	pluginStates = []string{"starting", "running", "degraded", "backoff", "failed", "stopped"}
	probeStates  = []string{"attached", "partial", "unavailable"}
)

// maxErrorLabel is how much of an error's text a label has, in bytes.
const maxErrorLabel = 160

// metric is the description of a family with its type.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// collector reads the source at every scrape and keeps nothing. Safe for use by
// several goroutines.
type collector struct {
	source Source
	all    []*prometheus.Desc

	seen, kept, sampledOut, filtered, lost, keptBytes, probability metric
	decoded, malformed, injected, released, inRing, held           metric
	skipped, faults                                                metric
	xReleased, xExported, xDropped, xFailed, xScoped, xQueued      metric
	xBytes                                                         metric
	attributed, waited, expired, overflow, corrected               metric
	containers, cgroups, key                                       metric
	byPID, namespaces, pods, services                              metric
	firstExecs, firstNamed                                         metric
	delay                                                          *prometheus.Desc
	queueDepth, queueCapacity                                      metric
	pState, pInfo, pRestarts, pMemory, pCPU                        metric
	pQueue, pDropped, pRefused, pSince, pReplaced, pPID, pError    metric
	generation, policyInfo, swaps, policyRefused, expires          metric
	probe                                                          metric
	load                                                           loadMetrics
}

func newCollector(source Source) *collector {
	c := &collector{source: source}
	describe := func(name, help string, labels []string) *prometheus.Desc {
		d := prometheus.NewDesc("ebpf_tracer_"+name, help, labels, nil)
		c.all = append(c.all, d)
		return d
	}
	counter := func(name, help string, labels ...string) metric {
		return metric{describe(name, help, labels), prometheus.CounterValue}
	}
	gauge := func(name, help string, labels ...string) metric {
		return metric{describe(name, help, labels), prometheus.GaugeValue}
	}

	c.seen = counter("events_seen_total", "Events that reached the decision in the kernel: kept, sampled out, filtered and lost together.", "kind", "priority")
	c.kept = counter("events_kept_total", "Events that were put into a ring, injected, or kept by a program that asked.", "kind", "priority")
	c.sampledOut = counter("events_sampled_out_total", "Events that the sampling policy left out.", "kind", "priority")
	c.filtered = counter("events_filtered_total", "Events that a filter left out.", "kind", "priority")
	c.lost = counter("events_lost_total", "Events that found no room in a ring, or to be injected.", "kind", "priority")
	c.keptBytes = counter("events_kept_bytes_total", "Bytes of the records that were put into a ring.", "kind", "priority")
	c.probability = gauge("sampling_probability_ratio", "Probability that an event is kept, as the policy in force has it.", "kind", "priority", "group")

	c.decoded = counter("events_decoded_total", "Records that were read from a ring and decoded.")
	c.malformed = counter("events_malformed_total", "Records that were read from a ring and could not be decoded.")
	c.injected = counter("events_injected_total", "Events that did not come from the kernel.")
	c.released = counter("events_released_total", "Events that were handed to the exporters.")
	c.inRing = gauge("events_in_ring", "Events in the rings that were not read yet.")
	c.held = gauge("events_held", "Events that wait for the metadata of their container.")
	c.skipped = counter("program_runs_skipped_total", "Runs of programs that the kernel left out; their events are in no other count.")
	c.faults = counter("program_faults_total", "What went wrong inside the kernel's programs.", "fault")

	c.xReleased = counter("exporter_released_events_total", "Events that were handed to the exporter.", "exporter")
	c.xExported = counter("exporter_exported_events_total", "Events that left the daemon.", "exporter")
	c.xDropped = counter("exporter_queue_dropped_events_total", "Events that found no room in the exporter's queue.", "exporter")
	c.xFailed = counter("exporter_failed_events_total", "Events whose writing failed.", "exporter")
	c.xScoped = counter("exporter_scoped_out_events_total", "Events that the exporter was not meant to take.", "exporter")
	c.xQueued = gauge("exporter_queued_events", "Events that wait in the exporter's queue.", "exporter")
	c.xBytes = counter("exporter_exported_bytes_total", "Bytes that left the daemon.", "exporter")

	c.attributed = counter("attributed_events_total", "Released events by what they belong to: the host, a container, or a container whose metadata did not come in time (pending).", "to")
	c.waited = counter("attribution_held_events_total", "Events that waited for the metadata of their container.")
	c.expired = counter("attribution_hold_expired_events_total", "Events that waited in vain.")
	c.overflow = counter("attribution_hold_overflow_events_total", "Events that should have waited, but for which there was no room.")
	c.corrected = counter("attribution_corrected_total", "Cgroups whose container turned out to be another.")
	c.byPID = counter("attribution_by_pid_namespace_events_total", "Events of containers that were told by their pid namespace, since their cgroup is the host's.")
	c.firstExecs = counter("first_execs_total", "First execs that were met of containers' cgroups, and of cgroups that may be a container's.")
	c.firstNamed = counter("first_execs_named_total", "Those of the first execs that were released with the container's id, name and image.")
	c.delay = describe("attribution_delay_seconds", "How long after it happened an event that waited was released.", nil)
	c.containers = gauge("containers", "Containers that are described now.")
	c.cgroups = gauge("cgroups", "Cgroups of the default hierarchy that are there now.")
	c.namespaces = gauge("namespaces", "Namespaces that containers are in now, the host's own among them.", "type")
	c.pods = gauge("pods", "Pods that are described now.")
	c.services = gauge("services", "Services that are described now.")
	c.key = gauge("attribution_key_info", "1, labelled with what attribution goes by on this host.", "key")

	c.queueDepth = gauge("queue_depth", "Items that wait in a queue.", "queue")
	c.queueCapacity = gauge("queue_capacity", "Items that a queue has room for.", "queue")

	c.pState = gauge("plugin_state", "1 for the state that the plugin is in, 0 for the others.", "kind", "name", "state")
	c.pSince = gauge("plugin_state_since_timestamp_seconds", "When the plugin came into the state that it is in.", "kind", "name")
	c.pInfo = gauge("plugin_info", "1, labelled with the plugin's version.", "kind", "name", "version")
	c.pRestarts = counter("plugin_restarts_total", "How often the plugin was started again.", "kind", "name")
	c.pReplaced = counter("plugin_replacements_total", "How often a reload put a new process in the place of the plugin's.", "kind", "name")
	c.pPID = gauge("plugin_pid", "Process id of the plugin; 0: it has no process.", "kind", "name")
	c.pError = gauge("plugin_last_error_info", "1, labelled with what is wrong with the plugin, or else why a process of it ended last; absent: nothing.", "kind", "name", "error")
	c.pMemory = gauge("plugin_resident_memory_bytes", "Resident memory of the plugin's process.", "kind", "name")
	c.pCPU = counter("plugin_cpu_seconds_total", "CPU time of all the plugin's processes.", "kind", "name")
	c.pQueue = gauge("plugin_queue_depth", "Items that wait to be sent to the plugin.", "kind", "name")
	c.pDropped = counter("plugin_queue_dropped_total", "Items that could not wait for the plugin and were told again as a list.", "kind", "name")
	c.pRefused = counter("plugin_refused_total", "Items from the plugin that broke the contract.", "kind", "name")

	c.generation = gauge("policy_generation", "Generation of the sampling policy in force.")
	c.policyInfo = gauge("policy_info", "1, labelled with where the sampling policy in force is from.", "source")
	c.swaps = counter("policy_swaps_total", "How often a sampling policy was put into force.")
	c.policyRefused = counter("policy_refused_total", "Sampling policies that were refused.")
	c.expires = gauge("policy_expiry_timestamp_seconds", "When the sampling policy in force ends, if it is not renewed; absent: never.")
	c.probe = gauge("probe_state", "1 for the state that the probe is in, 0 for the others.", "probe", "state")
	c.load = newLoadMetrics(counter, gauge)
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.all {
		out <- d
	}
}

// Collect implements prometheus.Collector. A source that fails makes the scrape
// say so; the metrics that need no source are served all the same.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := sink{out}
	c.collectPlugins(s, c.source.Plugins())
	for typ, n := range c.source.NamespaceCounts() {
		s.count(c.namespaces, n, typ)
	}
	stats, err := c.source.Stats()
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.seen.desc, err)
		return
	}
	c.collectLedger(s, slices.Concat(stats.GetKernel(), stats.GetUser()))
	c.load.collect(s, stats)
	c.collectPipeline(s, stats)
	c.collectExporters(s, stats.GetExporters())
	c.collectAttribution(s, stats.GetAttribution())
	s.count(c.pods, stats.GetDiscovered().GetPods())
	s.count(c.services, stats.GetDiscovered().GetServices())
	c.collectPolicy(s, stats.GetPolicy())
	for _, q := range stats.GetQueues() {
		s.count(c.queueDepth, q.GetDepth(), q.GetQueue())
		s.count(c.queueCapacity, q.GetCapacity(), q.GetQueue())
	}
	for _, p := range stats.GetProbes() {
		s.oneHot(c.probe, probeStates, p.GetState(), p.GetName())
	}
}

// collectLedger adds up the rows of a kind and priority, and gives the lowest
// probability of those of one group.
func (c *collector) collectLedger(s sink, rows []*protov1.LedgerRow) {
	type class struct{ kind, priority, group string }
	counts := map[class]*protov1.LedgerRow{}
	lowest := map[class]float64{}
	for _, r := range rows {
		in := class{r.GetKind(), r.GetPriority(), r.GetGroup()}
		if p, ok := lowest[in]; !ok || r.GetProbability() < p {
			lowest[in] = r.GetProbability()
		}
		in.group = ""
		sum := counts[in]
		if sum == nil {
			sum = &protov1.LedgerRow{}
			counts[in] = sum
		}
		sum.Seen += r.GetSeen()
		sum.Kept += r.GetKept()
		sum.SampledOut += r.GetSampledOut()
		sum.Filtered += r.GetFiltered()
		sum.Lost += r.GetLost()
		sum.Bytes += r.GetBytes()
	}
	for in, sum := range counts {
		s.count(c.seen, sum.Seen, in.kind, in.priority)
		s.count(c.kept, sum.Kept, in.kind, in.priority)
		s.count(c.sampledOut, sum.SampledOut, in.kind, in.priority)
		s.count(c.filtered, sum.Filtered, in.kind, in.priority)
		s.count(c.lost, sum.Lost, in.kind, in.priority)
		s.count(c.keptBytes, sum.Bytes, in.kind, in.priority)
	}
	for in, p := range lowest {
		s.value(c.probability, p, in.kind, in.priority, in.group)
	}
}

func (c *collector) collectPipeline(s sink, stats *protov1.Stats) {
	p := stats.GetPipeline()
	s.count(c.decoded, p.GetDecoded())
	s.count(c.malformed, p.GetMalformed())
	s.count(c.injected, p.GetInjected())
	s.count(c.released, p.GetReleased())
	s.count(c.inRing, p.GetInRing())
	s.count(c.held, p.GetHeld())
	s.count(c.skipped, p.GetSkippedRuns())
	for fault, n := range stats.GetFaults() {
		s.count(c.faults, n, fault)
	}
}

func (c *collector) collectExporters(s sink, exporters []*protov1.ExporterStats) {
	for _, x := range exporters {
		s.count(c.xReleased, x.GetReleased(), x.GetName())
		s.count(c.xExported, x.GetExported(), x.GetName())
		s.count(c.xDropped, x.GetQueueDropped(), x.GetName())
		s.count(c.xFailed, x.GetFailed(), x.GetName())
		s.count(c.xScoped, x.GetScopedOut(), x.GetName())
		s.count(c.xQueued, x.GetQueued(), x.GetName())
		s.count(c.xBytes, x.GetBytes(), x.GetName())
	}
}

func (c *collector) collectAttribution(s sink, a *protov1.Attribution) {
	s.count(c.attributed, a.GetHost(), "host")
	s.count(c.attributed, a.GetContainer(), "container")
	s.count(c.attributed, a.GetPending(), "pending")
	s.count(c.waited, a.GetHeldTotal())
	s.count(c.expired, a.GetHeldExpired())
	s.count(c.overflow, a.GetHeldOverflow())
	s.count(c.corrected, a.GetCorrected())
	s.count(c.byPID, a.GetByPidNamespace())
	s.count(c.firstExecs, a.GetFirstExecs())
	s.count(c.firstNamed, a.GetFirstExecsNamed())
	s.count(c.containers, a.GetContainers())
	s.count(c.cgroups, a.GetCgroups())
	s.value(c.key, 1, a.GetKey())
	h := a.GetDelay()
	if len(h.GetCounts()) != len(h.GetBoundsSeconds())+1 {
		return // not told
	}
	buckets := make(map[float64]uint64, len(h.BoundsSeconds))
	var n uint64
	for i, bound := range h.BoundsSeconds {
		n += h.Counts[i]
		buckets[bound] = n
	}
	n += h.Counts[len(h.BoundsSeconds)]
	s.put(prometheus.NewConstHistogram(c.delay, n, h.SumSeconds, buckets))
}

func (c *collector) collectPolicy(s sink, p *protov1.PolicyStats) {
	s.count(c.generation, uint64(p.GetGeneration()))
	s.value(c.policyInfo, 1, p.GetSource())
	s.count(c.swaps, p.GetSwaps())
	s.count(c.policyRefused, p.GetRefused())
	if at := p.GetExpiresUnixNano(); at != 0 {
		s.value(c.expires, float64(at)/1e9)
	}
}

func (c *collector) collectPlugins(s sink, plugins []*protov1.PluginView) {
	for _, p := range plugins {
		if !slices.Contains(pluginStates, p.GetState()) {
			continue // it is looked for, and does not run
		}
		kind, name := kindName(p.GetKind()), p.GetName()
		s.oneHot(c.pState, pluginStates, p.GetState(), kind, name)
		s.value(c.pInfo, 1, kind, name, p.GetVersion())
		s.value(c.pSince, float64(p.GetSinceUnixNano())/1e9, kind, name)
		s.count(c.pRestarts, p.GetRestarts(), kind, name)
		s.count(c.pReplaced, p.GetReplaced(), kind, name)
		s.count(c.pPID, uint64(p.GetPid()), kind, name)
		if e := cmp.Or(p.GetReason(), p.GetLastError()); e != "" {
			e, _, _ = strings.Cut(e, "; it wrote last: ") // anybody may scrape, and a plugin may write anything
			s.value(c.pError, 1, kind, name, e[:min(len(e), maxErrorLabel)])
		}
		s.count(c.pMemory, p.GetMemoryBytes(), kind, name)
		s.value(c.pCPU, p.GetCpuSeconds(), kind, name)
		s.count(c.pQueue, p.GetQueueDepth(), kind, name)
		s.count(c.pDropped, p.GetQueueDropped(), kind, name)
		s.count(c.pRefused, p.GetRefused(), kind, name)
	}
}

// kindName is how a kind of plugin is called in the configuration.
func kindName(k protov1.Kind) string {
	switch k {
	case protov1.Kind_KIND_DISCOVERER:
		return "discoverer"
	case protov1.Kind_KIND_MESH:
		return "mesh"
	case protov1.Kind_KIND_SAMPLER:
		return "sampler"
	}
	return "unknown"
}

// sink is where the metrics of one scrape go.
type sink struct{ out chan<- prometheus.Metric }

func (s sink) put(m prometheus.Metric, err error) {
	if err != nil {
		m = prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
	}
	s.out <- m
}

func (s sink) value(m metric, v float64, labels ...string) {
	for i := range labels {
		labels[i] = text(labels[i])
	}
	s.put(prometheus.NewConstMetric(m.desc, m.kind, v, labels...))
}

func (s sink) count(m metric, n uint64, labels ...string) { s.value(m, float64(n), labels...) }

// oneHot puts one series for each state, and one more for a state that is none of
// them. The state is the last label.
func (s sink) oneHot(m metric, states []string, is string, labels ...string) {
	known := false
	for _, state := range states {
		v := 0.0
		if state == is {
			v, known = 1, true
		}
		s.value(m, v, append(labels[:len(labels):len(labels)], state)...)
	}
	if !known {
		s.value(m, 1, append(labels[:len(labels):len(labels)], is)...)
	}
}

// text is a label's value: valid UTF-8.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
