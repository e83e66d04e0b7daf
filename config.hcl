# Runs as it is on any host: ebpf-tracer run
# Every setting is described in docs/configuration.md.

# What this host is called in events.
node { name = env("NODE_NAME", hostname()) }

# What is traced. probe "file" {} adds file opens.
probe "process" {}
probe "network" {}

# Containers, of every runtime that is on this host or comes later.
# `ebpf-tracer get plugins --all` shows what was found and what was looked for.
discoverer "auto" {}

# Sidecars and the service identity that they stand for.
mesh "generic" {}

# What containers use: CPU, memory, disk, tasks, stalls and network.
resources {}

# How many events a second are kept, whatever comes, ...
budget { events_per_second = 100000 }

# ... and which, when there are more.
sampler "adaptive" {}

# One event a line on standard output.
exporter "json" { path = "-" }

# The daemon's own metrics and those of the containers: http://127.0.0.1:9464/metrics
exporter "prometheus" { listen = "127.0.0.1:9464" }
