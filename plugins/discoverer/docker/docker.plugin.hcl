plugin "discoverer" "docker" {
  protocol = 1
  command  = ["./docker"]

  needs {
    sockets = ["/var/run/docker.sock", "$DOCKER_HOST"]
    env     = ["DOCKER_HOST"]
  }
}
