plugin "discoverer" "podman" {
  protocol = 1
  command  = ["./docker", "podman"]

  needs {
    sockets = ["/run/podman/podman.sock"]
  }
}
