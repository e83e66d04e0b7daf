plugin "sampler" "threshold" {
  protocol = 1
  command  = ["./threshold"]
}
