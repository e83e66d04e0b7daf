plugin "discoverer" "systemd" {
  protocol = 1
  command  = ["./systemd"]

  needs {
    paths = ["/run/systemd/system"] # is there when systemd is what booted the host
  }
}
