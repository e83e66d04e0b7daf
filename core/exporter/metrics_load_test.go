package exporter

// wantLoad is what someFigures say of the load.
const wantLoad = `# HELP ebpf_tracer_events_weight_total Sum of the weights w of released events: it estimates those that were seen and not filtered.
# TYPE ebpf_tracer_events_weight_total counter
ebpf_tracer_events_weight_total{kind="process.exec",priority="info"} 92
ebpf_tracer_events_weight_total{kind="user.http_request",priority="info"} 20
# HELP ebpf_tracer_events_weight_variance_total Variance of the sum of the weights: the sum of w(w-1).
# TYPE ebpf_tracer_events_weight_variance_total counter
ebpf_tracer_events_weight_variance_total{kind="process.exec",priority="info"} 64
ebpf_tracer_events_weight_variance_total{kind="user.http_request",priority="info"} 60
# HELP ebpf_tracer_load_seen_events_per_second Events that were seen in the last second or minute.
# TYPE ebpf_tracer_load_seen_events_per_second gauge
ebpf_tracer_load_seen_events_per_second{window="1m"} 100
ebpf_tracer_load_seen_events_per_second{window="1s"} 110
# HELP ebpf_tracer_load_drop_rate_ratio Share of them that was sampled out or lost.
# TYPE ebpf_tracer_load_drop_rate_ratio gauge
ebpf_tracer_load_drop_rate_ratio{window="1m"} 0.25
ebpf_tracer_load_drop_rate_ratio{window="1s"} 0.5
# HELP ebpf_tracer_budget_exceeded_seconds_total Those of them in which more than 1.1 times the budget was kept.
# TYPE ebpf_tracer_budget_exceeded_seconds_total counter
ebpf_tracer_budget_exceeded_seconds_total 1
# HELP ebpf_tracer_budget_used_ratio What was kept in the last second, as a share of the budget.
# TYPE ebpf_tracer_budget_used_ratio gauge
ebpf_tracer_budget_used_ratio 1.1
# HELP ebpf_tracer_load_level 1 for the level of the load that the host is on, 0 for the others.
# TYPE ebpf_tracer_load_level gauge
ebpf_tracer_load_level{level="critical"} 0
ebpf_tracer_load_level{level="high"} 1
ebpf_tracer_load_level{level="low"} 0
ebpf_tracer_load_level{level="medium"} 0
# HELP ebpf_tracer_host_pressure_ratio Share of the last 10 s in which some task waited for the resource.
# TYPE ebpf_tracer_host_pressure_ratio gauge
ebpf_tracer_host_pressure_ratio{resource="cpu"} NaN
ebpf_tracer_host_pressure_ratio{resource="io"} 0.5
ebpf_tracer_host_pressure_ratio{resource="memory"} NaN
# HELP ebpf_tracer_host_memory_used_ratio Share of the host's memory that is not available.
# TYPE ebpf_tracer_host_memory_used_ratio gauge
ebpf_tracer_host_memory_used_ratio 0.75
# HELP ebpf_tracer_load_alert 1 while the log's warning of this name holds.
# TYPE ebpf_tracer_load_alert gauge
ebpf_tracer_load_alert{alert="high_drop_rate"} 1
# HELP ebpf_tracer_user_dropped_events_total Events that programs say that they have dropped.
# TYPE ebpf_tracer_user_dropped_events_total counter
ebpf_tracer_user_dropped_events_total 15
`
