plugin "sampler" "adaptive" {
  protocol = 1
  command  = ["./adaptive"]
}
