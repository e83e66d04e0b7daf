// Command containerd is the discoverer of containerd's containers, in all of its
// namespaces: those of ctr and nerdctl, of Kubernetes, and of Docker's engine. It is
// started by the daemon, never by hand.
//
// It exists so that the core knows no runtime. It owns what was last said of each
// container, which it needs to say the next change whole; containerd owns the truth. It
// only ever reads: it must never change anything in containerd, hold up an event for a
// question, or put an older answer over a newer event. A container of ctr, and so its
// cgroup, is called as its user likes; whether a new cgroup is a container's only this
// plugin can say, and it must say so of every one.
package main
