plugin "discoverer" "docker" {
  protocol = 1
  command  = ["./docker"]

  needs {
    sockets = ["/var/run/docker.sock", "/run/podman/podman.sock"]
    env     = ["DOCKER_HOST"]
  }
}
