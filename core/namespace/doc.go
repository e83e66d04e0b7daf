// Package namespace knows which namespaces the processes of containers are in: which
// container is in which, who shares one, which are the host's own, and what a pid or
// a user id of the host is called inside.
//
// It reads /proc/PID of each container's first process once for each of its starts, on
// a goroutine of its own, and again only when that process is gone. What it knows is
// about containers that the inventory describes, so that there is never more of it. It
// asks no runtime, stops nothing and enters no namespace. A process that does not
// belong to the container whose pid it has is not taken for it.
//
// For the events of containers that no cgroup tells apart there is ByPID: it takes no
// lock, allocates nothing, and gives nobody rather than the wrong one.
package namespace
