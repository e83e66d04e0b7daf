//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Probe "file": the open family, at the exit of each call, when the path is
 * sure to be in memory and the result is known.
 */
#include "tracer.h"

enum { ERESTARTSYS = 512, ERESTART_RESTARTBLOCK = 516 };
enum { AT_FDCWD = -100, O_CREAT_WRONLY_TRUNC = 01101 };

struct open_record {
	struct event_header header;
	struct event_open open;
	char path[PATH_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct open_record);
} open_scratch SEC(".maps");

#if defined(__TARGET_ARCH_x86)
#define ARG0(regs) BPF_CORE_READ(regs, di)
#define ARG1(regs) BPF_CORE_READ(regs, si)
#define ARG2(regs) BPF_CORE_READ(regs, dx)
#else
#define ARG0(regs) BPF_CORE_READ(regs, orig_x0)
#define ARG1(regs) BPF_CORE_READ(regs, regs[1])
#define ARG2(regs) BPF_CORE_READ(regs, regs[2])
#endif

/* opened decides first: an event that is not kept pays for nothing else. */
static __always_inline int opened(__s64 ret, __u32 call)
{
	struct task_struct *t = bpf_get_current_task_btf();
	struct subject s = {
		.pid = t->tgid, .cgroup = cgroup_of(t), .task = t, .syscall = call,
		.error = ret < 0 ? -ret : 0,
	};
	struct open_record *r;
	struct pt_regs *regs;
	struct decision d;
	const void *path;
	__u64 flags = 0;
	__u32 zero = 0;
	__u8 priority = ret < 0 ? PRIORITY_WARNING : PRIORITY_DEBUG;
	long n;

	/* interrupted: the call begins again and is told then */
	if (ret <= -ERESTARTSYS && ret >= -ERESTART_RESTARTBLOCK)
		return 0;
	if (!decide(&d, EVENT_FILE_OPEN, priority, 0, &s))
		return 0;
	r = bpf_map_lookup_elem(&open_scratch, &zero);
	if (!r) {
		fault(FAULT_NO_SCRATCH);
		charge_lost(&d);
		return 0;
	}
	fill_decision(&r->header, &d);
	fill_task(&r->header, t);
	regs = (struct pt_regs *)bpf_task_pt_regs(t);
	r->open.dirfd = AT_FDCWD;
	switch (call) {
	case CALL_OPENAT:
		r->open.dirfd = ARG0(regs);
		path = (void *)ARG1(regs);
		flags = ARG2(regs);
		break;
	case CALL_OPENAT2:
		r->open.dirfd = ARG0(regs);
		path = (void *)ARG1(regs);
		bpf_probe_read_user(&flags, sizeof(flags), (void *)ARG2(regs));
		break;
	case CALL_OPEN:
		path = (void *)ARG0(regs);
		flags = ARG1(regs);
		break;
	default:
		path = (void *)ARG0(regs);
		flags = O_CREAT_WRONLY_TRUNC;
	}
	r->open.open_flags = flags;
	r->open.result = ret;
	r->open.reserved = 0;
	n = bpf_probe_read_user_str(r->path, sizeof(r->path), path);
	if (n <= 0) {
		n = 1;
		r->header.flags = FLAG_UNREADABLE;
	} else if (n >= sizeof(r->path)) {
		n = sizeof(r->path);
		r->header.flags = FLAG_PATH_TRUNCATED;
	}
	n--; /* without the NUL */
	r->open.path_len = n;
	output(&d, r, sizeof(r->header) + sizeof(r->open) + (n & (PATH_BYTES - 1)));
	return 0;
}

/*
 * The exit of a call is told by one of two programs: at the exit of the function that makes
 * the call, or at its tracepoint. The first costs three quarters of the other, and a tracepoint
 * has every call of every process go the slow way, a quarter more for the cheapest; but not
 * every kernel takes it, and where one may take the CPU from a program that runs, it would
 * leave out the calls that come meanwhile.
 *
 * Calls that wait while a program of their function comes or goes, anybody's, are told by none.
 * An open hardly ever waits; an accept mostly does, and is told by its tracepoint alone.
 */
#if defined(__TARGET_ARCH_x86)
#define CALL_FUNCTION "__x64_sys_"
#else
#define CALL_FUNCTION "__arm64_sys_"
#endif

#define AT_EXIT(name, call)                                                    \
	SEC("tracepoint/syscalls/sys_exit_" #name)                             \
	int file_##name(struct syscall_exit *ctx)                              \
	{                                                                      \
		return opened(ctx->ret, call);                                 \
	}                                                                      \
	SEC("fexit/" CALL_FUNCTION #name)                                      \
	int file_##name##_fexit(unsigned long long *ctx) /* registers, result */ \
	{                                                                      \
		return opened(ctx[1], call);                                   \
	}

AT_EXIT(openat, CALL_OPENAT)
AT_EXIT(openat2, CALL_OPENAT2)

/* open and creat are system calls of their own on amd64 only. */
#if defined(__TARGET_ARCH_x86)
AT_EXIT(open, CALL_OPEN)
AT_EXIT(creat, CALL_CREAT)
#endif
