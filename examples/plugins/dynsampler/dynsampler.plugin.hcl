plugin "sampler" "dynsampler" {
  protocol = 1
  command  = ["./dynsampler"]
}
