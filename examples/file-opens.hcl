# Every file open on the host, and nothing else. File opens are many: larger
# rings take bursts, and a fixed rate keeps every one.
probe "file" {}

kernel { ring_size = "64MiB" }

sampler "fixed" { rate = 1.0 }

exporter "json" {
  path  = "-"
  kinds = ["file.open"]
}
