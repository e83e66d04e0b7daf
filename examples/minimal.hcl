# The least that is of use: process and network events on standard output.
# Everything else has defaults; without discoverers events are not attributed.
exporter "json" {}
