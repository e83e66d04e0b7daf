package kernel

// Unseen says, in sentences, what a probe does not see by its making. They stand in
// the documents too.
func Unseen(probe string) []string {
	switch probe {
	case "process":
		return []string{
			"Threads: a process is forked once and exits once.",
			"Executable paths run from the root of the process's mount tree, which after a plain chroot is more than the process itself sees.",
		}
	case "network":
		return []string{
			"Accepts and connects through io_uring, or of 32-bit programs on a 64-bit kernel, that fail without ever having begun. The states of their connections are seen.",
			"A listener that was never bound is told with port 0: the kernel chooses the port after the state changes.",
			"Sockets older than the tracer have no owner, but their container is known.",
			"MPTCP, and everything that is not TCP.",
		}
	case "file":
		return []string{
			"Opens through io_uring, and of 32-bit programs on a 64-bit kernel.",
			"Where the probe's programs are those of functions (`_fexit`): opens that a seccomp filter refuses or answers itself, and those that wait, as of a FIFO, while a program of the same function is attached or detached, be it another's.",
			"Paths of opens are told as they were given: relative ones are relative to `file.directory_fd` or to the working directory.",
		}
	case AccountName:
		return []string{
			"Traffic that passes no socket of the container: what the host routes to it, and what the kernel answers by itself (resets, echo replies).",
			"What arrives for connections in TIME_WAIT, and what the packet filter drops on its way in.",
			"Containers in no cgroup of the default hierarchy. Before 5.15 also those of hosts that use net_cls or net_prio.",
			"Traffic from before the tracer was started.",
		}
	}
	return nil
}
