plugin "discoverer" "crio" {
  protocol = 1
  command  = ["./crio"]

  needs {
    sockets = ["/var/run/crio/crio.sock"]
    env     = ["CONTAINER_RUNTIME_ENDPOINT"]
  }
}
