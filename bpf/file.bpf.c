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

AT_EXIT(file_openat, openat, opened, CALL_OPENAT)
AT_EXIT(file_openat2, openat2, opened, CALL_OPENAT2)

/* open and creat are system calls of their own on amd64 only. */
#if defined(__TARGET_ARCH_x86)
AT_EXIT(file_open, open, opened, CALL_OPEN)
AT_EXIT(file_creat, creat, opened, CALL_CREAT)
#endif
