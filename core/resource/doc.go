// Package resource knows what each container uses: CPU, memory, disk, tasks, stalls and
// network.
//
// It reads the control groups that the kernel accounts containers in, wherever this
// host has them (cgroup v1, v2, or some of each), and owns the last reading of every
// container. What a container is, and which groups are its own, the inventory says; it
// asks no runtime. Limits are the kernel's to enforce: it only reports how near a
// container is to one. It never reads because somebody scrapes or lists: readings go
// on at their own pace, spread over the interval, and whoever asks gets the last, or
// for one container, once a second at most, a fresh one.
//
// The files are read and parsed here and not by a library. github.com/containerd/cgroups
// and github.com/opencontainers/cgroups open every file for each reading, read some that
// nobody asked for, take a container to be in one version of control groups or the
// other, so that stalls are not told on a hybrid host, and fail as a whole when one file
// is gone meanwhile. BenchmarkReading has what a reading costs here, and BenchmarkRound
// a round of 1,000 containers.
package resource
