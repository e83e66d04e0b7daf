package exporter

import (
	"math"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// loadLevels are the levels that there are, each a series.
var loadLevels = []string{"low", "medium", "high", "critical"}

// windowNames are those of the windows of the load, in their order.
var windowNames = []string{"1s", "1m"}

// loadMetrics are about how much there is, and how much of it is kept.
type loadMetrics struct {
	weight, variance                                   metric
	seen, kept, filtered, samplingRate, dropRate       metric
	budget, used, seconds, exceeded, worst             metric
	level, pressing, relief, promoted                  metric
	cpu, memory, pressure                              metric
	network, networkUse, disk, diskUse                 metric
	alert, alerts                                      metric
	programs, programBudget, recorded, programsDropped metric
}

func newLoadMetrics(counter, gauge func(name, help string, labels ...string) metric) (m loadMetrics) {
	m.weight = counter("events_weight_total", "Sum of the weights w of released events: it estimates those that were seen and not filtered.", "kind", "priority")
	m.variance = counter("events_weight_variance_total", "Variance of the sum of the weights: the sum of w(w-1).", "kind", "priority")

	m.seen = gauge("load_seen_events_per_second", "Events that were seen in the last second or minute.", "window")
	m.kept = gauge("load_kept_events_per_second", "Events that were kept.", "window")
	m.filtered = gauge("load_filtered_events_per_second", "Events that a filter left out.", "window")
	m.samplingRate = gauge("load_sampling_rate_ratio", "Share that was kept of the events that no filter left out; 1 where there was none.", "window")
	m.dropRate = gauge("load_drop_rate_ratio", "Share of them that was sampled out or lost.", "window")

	m.budget = gauge("budget_events_per_second", "Budget of kept events in force; 0: there is none.")
	m.used = gauge("budget_used_ratio", "What was kept in the last second, as a share of the budget.")
	m.seconds = counter("budget_watched_seconds_total", "Seconds in which the budget was watched.")
	m.exceeded = counter("budget_exceeded_seconds_total", "Those of them in which more than 1.1 times the budget was kept.")
	m.worst = gauge("budget_worst_ratio", "The most that was kept in one of them, as a share of the budget.")

	m.level = gauge("load_level", "1 for the level of the load that the host is on, 0 for the others.", "level")
	m.pressing = gauge("load_pressing_resource_info", "1, labelled with the resource that decides on the level.", "resource")
	m.relief = gauge("relief_reasons", "Reasons for which less is kept than the sampler says.")
	m.promoted = gauge("policy_promoted_rows", "Classes of groups that have a row of their own in the policy in force.")

	m.cpu = gauge("host_cpu_utilization_ratio", "Share of the host's CPU time that was not idle. As in all of host_: NaN where the kernel does not tell.")
	m.memory = gauge("host_memory_used_ratio", "Share of the host's memory that is not available.")
	m.pressure = gauge("host_pressure_ratio", "Share of the last 10 s in which some task waited for the resource.", "resource")
	m.network = gauge("host_network_bytes_per_second", "Bytes that the host's interfaces moved.")
	m.networkUse = gauge("host_network_utilization_ratio", "Share of its speed that the busiest interface used.")
	m.disk = gauge("host_disk_bytes_per_second", "Bytes that the host's disks moved.")
	m.diskUse = gauge("host_disk_utilization_ratio", "Share of time in which the busiest disk was busy.")

	m.alert = gauge("load_alert", "1 while the log's warning of this name holds.", "alert")
	m.alerts = counter("load_alerts_total", "How often it began to hold.", "alert")

	m.programs = gauge("user_programs", "Programs that decide on their own events and have told of them lately.")
	m.programBudget = gauge("user_budget_events_per_second", "Budget of all of them together; 0: there is none.")
	m.recorded = counter("user_recorded_events_total", "Events that programs say that they have processed.")
	m.programsDropped = counter("user_dropped_events_total", "Events that programs say that they have dropped.")
	return m
}

func (m *loadMetrics) collect(s sink, stats *protov1.Stats) {
	m.estimates(s, stats.GetKernel(), stats.GetUser())
	l := stats.GetLoad()
	for i, w := range l.GetWindows() {
		if i >= len(windowNames) {
			break
		}
		name := windowNames[i]
		s.value(m.seen, w.GetSeenPerSecond(), name)
		s.value(m.kept, w.GetKeptPerSecond(), name)
		s.value(m.filtered, w.GetFilteredPerSecond(), name)
		s.value(m.samplingRate, w.GetSamplingRate(), name)
		s.value(m.dropRate, w.GetDropRate(), name)
	}
	b := l.GetBudget()
	s.value(m.budget, b.GetEventsPerSecond())
	s.value(m.used, b.GetUse())
	s.count(m.seconds, b.GetSeconds())
	s.count(m.exceeded, b.GetSeconds()-min(b.GetSecondsWithin(), b.GetSeconds()))
	s.value(m.worst, b.GetWorstRatio())
	if level := l.GetLevel().GetLevel(); level != "" {
		s.oneHot(m.level, loadLevels, level)
		s.value(m.pressing, 1, l.GetLevel().GetResource())
	}
	s.count(m.relief, uint64(len(l.GetRelief())))
	s.count(m.promoted, uint64(l.GetPromotedRows()))
	m.host(s, l.GetHost())
	for _, a := range l.GetAlerts() {
		active := 0.0
		if a.GetActive() {
			active = 1
		}
		s.value(m.alert, active, a.GetName())
		s.count(m.alerts, a.GetTimes(), a.GetName())
	}
	u := stats.GetUserEvents()
	s.count(m.programs, uint64(u.GetPrograms()))
	s.value(m.programBudget, u.GetEventsPerSecond())
	s.count(m.recorded, u.GetRecorded())
	s.count(m.programsDropped, u.GetDropped())
}

// estimates adds up those of a kind and priority.
func (m *loadMetrics) estimates(s sink, ledgers ...[]*protov1.LedgerRow) {
	type class struct{ kind, priority string }
	sums := map[class]*protov1.Estimate{}
	for _, rows := range ledgers {
		for _, r := range rows {
			e := r.GetEstimate()
			if e == nil {
				continue
			}
			in := class{r.GetKind(), r.GetPriority()}
			if sums[in] == nil {
				sums[in] = &protov1.Estimate{}
			}
			sums[in].Weight += e.GetWeight()
			sums[in].Variance += e.GetVariance()
		}
	}
	for in, e := range sums {
		s.value(m.weight, e.Weight, in.kind, in.priority)
		s.value(m.variance, e.Variance, in.kind, in.priority)
	}
}

func (m *loadMetrics) host(s sink, h *protov1.HostLoad) {
	told := func(v *float64) float64 {
		if v == nil {
			return math.NaN()
		}
		return *v
	}
	pressed := func(p *protov1.Pressure) float64 {
		if p == nil {
			return math.NaN()
		}
		return p.GetSome()
	}
	if h == nil {
		h = &protov1.HostLoad{}
	}
	memory := math.NaN()
	if total := h.GetMemoryTotalBytes(); total > 0 {
		memory = 1 - float64(h.GetMemoryAvailableBytes())/float64(total)
	}
	s.value(m.cpu, told(h.CpuUtilization))
	s.value(m.memory, memory)
	s.value(m.pressure, pressed(h.GetPressureCpu()), "cpu")
	s.value(m.pressure, pressed(h.GetPressureMemory()), "memory")
	s.value(m.pressure, pressed(h.GetPressureIo()), "io")
	s.value(m.network, told(h.NetworkBytesPerSecond))
	s.value(m.networkUse, told(h.NetworkUtilization))
	s.value(m.disk, told(h.DiskBytesPerSecond))
	s.value(m.diskUse, told(h.DiskUtilization))
}
