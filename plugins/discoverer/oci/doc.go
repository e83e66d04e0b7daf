// Command oci is the discoverer of containers that an OCI runtime runs, whoever asked
// it to: runc, crun, youki, alone or below Docker, containerd, CRI-O or Podman. It is
// started by the daemon, never by hand.
//
// It exists for containers that no daemon knows of, whose cgroups are often named like
// anything else. What it goes by is what the runtimes themselves leave in their state
// directories; of each new cgroup it says whether it is a container's, since the
// cgroup's first events wait for that.
//
// It owns what was last said of each container; the state directories own the truth. It
// only ever looks: it must never open the fifo by which a runtime starts a container,
// follow a link out of a state directory, or take a cgroup for a container's because of
// its name alone.
package main
