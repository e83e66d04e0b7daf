# A host that runs containers in Docker for long: events go to files that are
# rotated, nothing to standard output, metrics to Prometheus.
node { name = env("NODE_NAME", hostname()) }

probe "process" {}
probe "network" {}

discoverer "docker" {
  # How the daemon runs the plugin.
  plugin {
    memory        = "128MiB"
    start_timeout = "10s"
  }
  resync = "1m"
}

mesh "generic" {}

sampler "threshold" {
  level {
    below = 2000
    rate  = 1.0
  }
  level {
    below = 20000
    rate  = 0.5
  }
  above_max_rate = 0.1
  above_min_rate = 0.01
}

exporter "json" {
  path      = "/var/log/ebpf-tracer/events.json"
  max_size  = "500MB"
  max_files = 10
}

exporter "prometheus" { listen = ":9464" }

log {
  level  = "warn"
  format = "json"
}
