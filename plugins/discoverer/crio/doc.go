// Command crio is the discoverer of CRI-O's containers and pods, and of those of any
// other runtime that serves the Kubernetes container runtime interface (CRI), such as
// containerd. It is started by the daemon, never by hand.
//
// It exists so that the core knows no runtime. It owns what was last said of each
// container and pod, which it needs to say the next change whole; the runtime owns the
// truth. It only ever reads: it must never change anything in the runtime, hold up an
// event for a status, or put an older answer over a newer event.
package main
