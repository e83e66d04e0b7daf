# The least that is of use: process and network events on standard output, with the
# containers of every runtime that is on this host. Everything else has defaults.
discoverer "auto" {}
exporter "json" {}
