plugin "mesh" "generic" {
  protocol = 1
  command  = ["./generic"]
}
