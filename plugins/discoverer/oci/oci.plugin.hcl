plugin "discoverer" "oci" {
  protocol = 1
  command  = ["./oci"]

  auto { fallback = true } # it needs no daemon, and leaves alone what a daemon manages

  needs {
    # State directories are their owner's alone. Of all that would open them this is the
    # least: it reads, and what there is to read in the plugin's own root directory is
    # what stands here. Bundles and the host's /proc are for the operator to grant.
    capabilities = ["CAP_DAC_READ_SEARCH"]
    paths = [
      "/run/runc", "/run/crun", "/run/youki", "/run/containerd/runc", "/run/docker/runtime-runc",
      "/sys/fs/cgroup",
    ]
  }
}
