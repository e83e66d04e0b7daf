plugin "discoverer" "containerd" {
  protocol = 1
  command  = ["./containerd"]

  needs {
    sockets = ["/run/containerd/containerd.sock"]
    env     = ["CONTAINERD_ADDRESS"]
  }
}
