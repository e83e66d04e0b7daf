plugin "sampler" "predictive" {
  protocol = 1
  command  = ["./adaptive", "predictive"]
}
