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
 * What was seen is offered + sampled_out + filtered, and kept = offered - lost. Every
 * count only rises, by one addition an event: an event is seen when its outcome
 * is. A row is read from its start, which gives the order: what was read as lost has
 * been offered, and what user space has decoded was offered before.
 *
 * Rows 0 .. POOLED_ROWS-1 are pooled: kind * PRIORITIES + priority. Those of
 * promoted classes, named by the map `groups`, begin at PROMOTED_ROW, so that a new
 * kind moves no row of theirs.
 */
struct policy_row {
	__u64 lost;
	__u64 offered; /* to a ring */
	__u64 sampled_out;
	__u64 filtered;
	__u64 bytes; /* of kept records */
	__u64 arrived; /* for the ladder, and not exact */
	/* the rule */
	__u64 threshold; /* 56 bits: the plan's, before ladder and valve */
	__u32 generation;
	__u32 flags;
	__u32 ref; /* events in an epoch on this CPU that are no burst; 0: no ladder */
	/* the ladder's state */
	__u32 epoch;
	__u32 steps;
	__u32 reserved;
	__u64 span;
	__u64 next;
	/* the draw's and the valve's */
	__u64 random;  /* state of a generator, never 0 */
	__u64 charged; /* shares not yet paid for, in 2^-56 */
};

enum row_flag {
	ROW_RESERVED = 1 << 0, /* kept for sure, as long as the reserve lasts */
	ROW_FREE = 1 << 1,     /* outside of the budget: attribution stands on it */
};

enum {
	POOLED_ROWS = EVENT_KINDS * PRIORITIES,
	PROMOTED_ROW = 128, /* and the room for classes in a group */
};

/*
 * What is known of a cgroup, in a cache line of its own. It has one of NEAR places, from
 * the one on that its id gives. The programs give it one with its first event, user space
 * when it has something to say of it, whoever comes first; it is taken back when the
 * cgroup is removed.
 */
struct cgroup_state {
	__u64 id;	       /* whose the place is; 0: nobody's */
	__u64 reserve_paid_ns; /* as in the valve, of its own part */
	__u64 paid_ns;	       /* the same of an equal part of the budget */
	__u64 filters;	       /* that name it: a bit each, as in filter_value */
	__u32 group;	       /* its entry in `groups`; 0: none */
	__u32 told;	       /* kinds of which it had an event, a bit each */
	__u32 share;	       /* its entry in `shares`; 0: none */
	__u32 reserved[5];
};

enum { NEAR = 8 };

/*
 * A share of the budget that some cgroups have to themselves: as long as they have not
 * used it up they are not made to pay for what others spend.
 */
struct budget_share {
	__u64 paid_ns; /* as in the valve, of this part of the budget */
	__u64 parts;   /* how many such make the whole, in 1/256; 0: it is no share */
	__u64 kept;    /* events offered to a ring */
	__u64 unused[5];
};

enum { SHARES = 33 }; /* the first is none */

/* The rows of a group of cgroups: by kind * PRIORITIES + priority, 0: pooled. */
struct group_rows {
	__u16 row[PROMOTED_ROW];
};

/*
 * The budget of all that is kept: see decide.h. The rule is written by user space at
 * any time, the state by the programs, without locks: each of its words means
 * something alone.
 */
struct valve {
	/* the state */
	__u64 paid_ns;	       /* the time until which the budget is spent */
	__u64 reserve_paid_ns; /* the same of the reserve */
	__u64 now_ns;	       /* CLOCK_MONOTONIC, seldom more than a tick old */
	__u64 tick;
	__u64 unused[4];
	/* the rule, in a cache line of its own */
	__u64 event_cost;   /* 1/budget, in 1/256 ns; 0: no budget */
	__u64 reserve_cost; /* 1/reserve */
	__u64 quantum;	    /* shares that are paid for together, in 2^-56: a power of 2 */
	__u64 raise;	    /* how far shares may be raised: sixteenths of a doubling, at most 112 */
	__u64 filters;	    /* the filters in force: their place in `filters` and 1; 0: none */
	__u64 sharers;	    /* cgroups that share the budget; 0: as if there were one */
	__u64 unused2[2];
};

/*
 * Filters: what is not wanted, whatever the budget. There are at most 32, each a bit,
 * the first in order the lowest; a set has the lower or the upper half of the word, so
 * that the next can be prepared beside the one in force. An event matches one when it has, of everything that
 * the filter asks for, one of the values named. What an event matches is the
 * conjunction of one word for each thing asked for, so that neither the number of
 * filters nor that of values makes an event slower.
 */
enum filter_ask {
	ASK_CGROUP = 0,
	ASK_COMM = 1,
	ASK_PEER = 2, /* the address of a connection's other end */
	/* the following by number */
	ASK_PID = 3,
	ASK_UID = 4,
	ASK_PORT = 5, /* of either end */
	ASK_ERROR = 6,
	ASK_SYSCALL = 7,
	ASKS = 8,
};

/* The calls whose exits tell events: numbers of our own, the same on every machine. */
enum call {
	CALL_OPEN = 1,
	CALL_OPENAT = 2,
	CALL_OPENAT2 = 3,
	CALL_CREAT = 4,
	CALL_CONNECT = 5,
	CALL_ACCEPT = 6,
	CALL_ACCEPT4 = 7,
};

enum { FILTERS = 64, QUICK_FILTERS = 8192 }; /* bits; numbers of quick ones, half of them a set's */

struct filters {
	__u64 kinds[32]; /* filters that look at the kind */
	__u64 priorities[8]; /* those that look at events that come with the priority */
	__u64 without[ASKS]; /* those that do not ask for it */
	__u64 drop;	 /* what matches is filtered */
	__u64 keep;	 /* what matches is filtered by none after it */
	__u64 only;	 /* what does not match is filtered */
	__u64 ranks;	 /* what matches gets another priority, that of the first: */
	__u64 asks;	 /* for which of enum filter_ask any filter asks, a bit each */
	__u8 rank[64];	 /* by bit */
};

/* A value that filters name. */
struct filter_value {
	__u64 filters;
	__u32 quick; /* the number, from 1, of one that asks for this value alone, and
		      * drops; after all others */
	__u32 reserved;
};

struct filter_number {
	__u32 ask;
	__u32 value;
};

struct filter_prefix {
	__u32 bits;
	__u8 address[16]; /* IPv4 as ::ffff:0:0/96 */
};

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
	FAULT_NO_CGROUP_STATE = 6, /* decided by the pooled row, and no first */
	FAULTS = 7,
};

#endif
