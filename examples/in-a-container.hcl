# The daemon in a container that sees the host's root directory at /host, read-only,
# mounted so that what the host mounts later shows in it too (rslave). It needs the
# host's pid and cgroup namespaces, and to be privileged enough to load programs.
node {
  name      = env("NODE_NAME", hostname())
  host_root = env("HOST_ROOT", "/host")
}

# Every runtime of the host, by its socket below /host.
discoverer "auto" {
  # How long a runtime may be away, as during an upgrade, until it is forgotten.
  grace = "2m"
}

mesh "generic" {}

exporter "json" {}
exporter "prometheus" { listen = ":9464" }
