plugin "sampler" "fixed" {
  protocol = 1
  command  = ["./threshold", "fixed"]
}
