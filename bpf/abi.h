/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The event ABI: what the programs write into a ring and core/event reads.
 *
 * A record is `struct event_header`, then the fixed part of its kind, then that
 * kind's variable bytes, unpadded; the record's length is the ring's. Integers
 * are in the host's byte order, addresses and nothing else in network order.
 * A test compares every offset here with the Go side.
 */
#ifndef __ABI_H__
#define __ABI_H__

/* Kinds. A number once given is never given again. */
enum event_kind {
	EVENT_PROCESS_FORK = 0,
	EVENT_PROCESS_EXEC = 1,
	EVENT_PROCESS_EXIT = 2,
	EVENT_NETWORK_CONNECT = 3,
	EVENT_NETWORK_CONNECT_FAILED = 4,
	EVENT_NETWORK_ACCEPT = 5,
	EVENT_NETWORK_CLOSE = 6,
	EVENT_NETWORK_LISTEN = 7,
	EVENT_FILE_OPEN = 8,
	EVENT_CGROUP_CREATE = 9,
	EVENT_CGROUP_REMOVE = 10,
	EVENT_KINDS = 11,
};

enum event_priority {
	PRIORITY_DEBUG = 0,
	PRIORITY_INFO = 1,
	PRIORITY_WARNING = 2,
	PRIORITY_ERROR = 3,
	PRIORITY_CRITICAL = 4,
	PRIORITIES = 5,
};

enum event_flag {
	FLAG_ARGS_TRUNCATED = 1 << 0,
	FLAG_PATH_TRUNCATED = 1 << 1,
	FLAG_OWNER_UNKNOWN = 1 << 2, /* a socket older than the tracer: no pid */
	FLAG_OWNER_LISTENER = 1 << 3, /* not accepted yet: the listener's pid */
	FLAG_CORE_DUMPED = 1 << 4,
	FLAG_UNREADABLE = 1 << 5, /* user memory could not be read */
	FLAG_PATH_DETACHED = 1 << 6, /* a file in no directory: a memfd */
	FLAG_PATH_DELETED = 1 << 7,  /* no directory holds it any more */
};

struct event_header {
	__u64 time_ns;	  /* CLOCK_MONOTONIC */
	__u64 cgroup_id;  /* on the default hierarchy */
	__u64 threshold;  /* 56 bits: kept with probability 1 - threshold/2^56 */
	__u64 random;	  /* 56 bits: the number drawn, at least threshold; all
			   * events of a process, or of a socket, have the same;
			   * 0: none was drawn */
	__u64 start_ns;	  /* of the process; with pid it is unique; 0: not known */
	__u32 row;	  /* of the decision table, and ... */
	__u32 generation; /* ... the table's, which the event is charged to */
	__u32 flags;
	__u16 kind;
	__u8 priority;
	__u8 reserved;
	__u32 pid;    /* thread group id in the host's pid namespace */
	__u32 tid;
	__u32 ns_pid; /* the same in the task's own pid namespace */
	__u32 ns_tid;
	__u32 uid;    /* in the host's user namespace */
	__u32 euid;
	__u32 pidns;  /* inode numbers of namespaces */
	__u32 mntns;
	__u32 netns;
	char comm[16];
	__u32 parent_pid; /* thread group id of the parent; 0: not told */
};

/* EVENT_PROCESS_FORK: the header is the child's. */
struct event_fork {
	__u32 parent_tid;
	__u32 parent_ns_pid;
};

/* EVENT_PROCESS_EXEC: then path_len bytes: the names of the executable's path
 * from the last to the first, each ended by NUL; then args_len bytes: the
 * arguments, each ended by NUL. */
struct event_exec {
	__u16 path_len;
	__u16 args_len;
};

/* EVENT_PROCESS_EXIT, once per process. */
struct event_exit {
	__u64 duration_ns; /* since the fork */
	__u32 code;
	__u32 signal;
};

/* EVENT_NETWORK_*. Addresses are 16 bytes, IPv4 in the first four. */
struct event_network {
	__u64 cookie;	   /* names the socket while the kernel runs; 0: none */
	__u64 duration_ns; /* connect: time to connect; close: connected time */
	__u64 sent_bytes;
	__u64 received_bytes;
	__u8 local_addr[16];
	__u8 peer_addr[16];
	__u16 local_port;
	__u16 peer_port;
	__u16 family;	/* AF_INET 2, AF_INET6 10 */
	__u16 error;	/* errno of a failed connect (0 there: given up), or that
			 * ended a connection */
	__u32 backlog;	/* of a listener */
	__u32 reserved;
};

/* EVENT_FILE_OPEN: then path_len bytes, as given by the process. */
struct event_open {
	__u32 open_flags;
	__s32 result; /* the descriptor, or -errno */
	__s32 dirfd;
	__u16 path_len;
	__u16 reserved;
};

/* EVENT_CGROUP_*: the header's cgroup is the one created or removed; then
 * path_len bytes: its path from the root of the hierarchy. */
struct event_cgroup {
	__u32 level;
	__u16 path_len;
	__u16 reserved;
};

enum {
	PATH_BYTES = 1024, /* of an executable, an opened file, a cgroup */
	PATH_NAMES = 40,   /* components of an executable's path */
	ARGS_BYTES = 2048,
};

/*
 * The decision table. One generation is one per-CPU array of these rows; the
 * array in force stands in slot 0 of the map `policy`. A row holds both the
 * rule and the counts of what was decided under it, so that each event is
 * charged to its own row and generation by construction.
 *
 * seen = offered + sampled_out + filtered, and kept = offered - lost. Every count
 * only rises. A row is read from its start, which gives the order: what was read
 * as an outcome has been seen, what was read as lost has been offered, and what
 * user space has decoded was offered before.
 *
 * Rows 0 .. POOLED_ROWS-1 are pooled: kind * PRIORITIES + priority. Those of
 * promoted classes, named by a slot in the storage of a cgroup, begin at
 * PROMOTED_ROW, so that a new kind moves no row of theirs.
 */
struct policy_row {
	__u64 lost;
	__u64 offered; /* to a ring */
	__u64 sampled_out;
	__u64 filtered;
	__u64 bytes; /* of kept records */
	__u64 seen;
	__u64 threshold;
	__u64 random; /* state of a generator, never 0 */
	__u32 generation;
	__u32 reserved;
};

enum { POOLED_ROWS = EVENT_KINDS * PRIORITIES, PROMOTED_ROW = 1024 };

/* What a ring's reader is doing, which decides whether a record wakes it. */
enum reader_mode {
	READER_BUSY = 0, /* reading: never */
	READER_TICK = 1, /* asleep for some milliseconds: above the watermark */
	READER_IDLE = 2, /* asleep: at once */
};

struct reader_state {
	__u32 mode;
	__u32 watermark; /* bytes waiting */
	__u64 reserved[7];
};

/* Faults of the programs themselves, counted per CPU. */
enum fault {
	FAULT_NO_POLICY = 0,	 /* no table or no row: the event is not seen */
	FAULT_NO_SCRATCH = 1,	 /* charged as lost too */
	FAULT_NO_SOCK_STORAGE = 2,
	FAULT_CONNECTS = 3,	 /* an errno may be told twice */
	FAULT_OWNERS = 4,	 /* a close keeps its listener's owner */
	FAULT_NO_TASK_STORAGE = 5, /* an exit may be told twice */
	FAULTS = 6,
};

#endif
