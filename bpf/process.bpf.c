//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Probe "process": fork, exec and exit, one event each per process. */
#include "tracer.h"

struct exec_record {
	struct event_header header;
	struct event_exec exec;
	/* room for the longest name past the end of the path, and for the
	 * arguments after a path of any length */
	char bytes[PATH_BYTES + 256 + ARGS_BYTES];
};

/* Whether arguments are read at all. A map, since it may change while the probe
 * is attached: to load it again would lose an exec, or tell one twice. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} exec_options SEC(".maps");

/* One program, one CPU, never nested: the kernel skips a nested run. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec_record);
} exec_scratch SEC(".maps");

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	struct {
		struct event_header header;
		struct event_fork fork;
	} *r;
	struct subject s = { .pid = parent->tgid, .cgroup = cgroup_of(child), .task = child };
	struct decision d;
	struct task_ids ids;
	void *ring;
	__u32 index;

	if (child->pid != child->tgid) /* a thread */
		return 0;
	if (!decide(&d, EVENT_PROCESS_FORK, PRIORITY_DEBUG, draw_process(child), &s))
		return 0;
	r = reserve(&d, typeof(*r), ring, index);
	if (!r)
		return 0;
	fill_decision(&r->header, &d);
	fill_task(&r->header, child);
	fill_ns_ids(&ids, parent);
	r->header.parent_pid = parent->tgid;
	r->fork.parent_tid = parent->pid;
	r->fork.parent_ns_pid = ids.ns_pid;
	submit(&d, r, sizeof(*r), ring, index);
	return 0;
}

/*
 * The path of a file from the root of its mount tree: a walk up the dentries
 * and across mounts (bpf_d_path is not for tracepoints). Names are written from
 * the last to the first; user space turns them round.
 */
static __always_inline __u32 walk_path(struct file *file, char *bytes, __u32 *flags)
{
	struct dentry *dentry, *root, *parent;
	struct vfsmount *vfsmount;
	struct mount *mount, *up;
	struct qstr name;
	struct inode *inode;
	unsigned int links = 1;
	__u32 at = 0;
	long n;
	int i;

	bpf_core_read(&inode, sizeof(inode), &file->f_inode);
	bpf_core_read(&links, sizeof(links), &inode->i_nlink);
	if (!links)
		*flags |= FLAG_PATH_DELETED;
	bpf_core_read(&vfsmount, sizeof(vfsmount), &file->f_path.mnt);
	bpf_core_read(&dentry, sizeof(dentry), &file->f_path.dentry);
	bpf_core_read(&root, sizeof(root), &vfsmount->mnt_root);
	for (i = 0; i < PATH_NAMES; i++) {
		if (dentry == root) { /* the top of this mount: cross it */
			mount = (void *)vfsmount - bpf_core_field_offset(struct mount, mnt);
			bpf_core_read(&up, sizeof(up), &mount->mnt_parent);
			if (up == mount)
				return at;
			bpf_core_read(&dentry, sizeof(dentry), &mount->mnt_mountpoint);
			vfsmount = (void *)up + bpf_core_field_offset(struct mount, mnt);
			bpf_core_read(&root, sizeof(root), &vfsmount->mnt_root);
			continue;
		}
		bpf_core_read(&parent, sizeof(parent), &dentry->d_parent);
		if (!parent)
			return at;
		if (at >= PATH_BYTES)
			break;
		bpf_core_read(&name.name, sizeof(name.name), &dentry->d_name.name);
		n = bpf_probe_read_kernel_str(bytes + at, 256, name.name);
		if (n <= 0)
			break;
		at += n;
		if (parent == dentry) { /* in no directory: a memfd */
			*flags |= FLAG_PATH_DETACHED;
			return at;
		}
		dentry = parent;
	}
	*flags |= FLAG_PATH_TRUNCATED;
	return at;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct subject s = { .pid = task->tgid, .cgroup = cgroup_of(task), .task = task };
	struct exec_record *r;
	struct decision d;
	__u32 zero = 0, path, args, *exec_args;
	__u64 start, length;
	__u32 flags = 0;

	if (!decide(&d, EVENT_PROCESS_EXEC, PRIORITY_INFO, draw_process(task->group_leader), &s))
		return 0;
	r = bpf_map_lookup_elem(&exec_scratch, &zero);
	if (!r) {
		fault(FAULT_NO_SCRATCH);
		charge_lost(&d);
		return 0;
	}
	fill_decision(&r->header, &d);
	fill_task(&r->header, task);
	path = walk_path(task->mm->exe_file, r->bytes, &flags);
	asm volatile("" : "+r"(path)); /* or the compiler drops the check ... */
	if (path > PATH_BYTES + 255)   /* ... that the verifier of 6.1 wants */
		path = PATH_BYTES + 255;

	start = task->mm->arg_start;
	length = task->mm->arg_end - start;
	exec_args = bpf_map_lookup_elem(&exec_options, &zero);
	if (!exec_args || !*exec_args) {
		length = 0;
	} else if (length > ARGS_BYTES) {
		length = ARGS_BYTES;
		flags |= FLAG_ARGS_TRUNCATED;
	}
	args = length;
	asm volatile("" : "+r"(args));
	if (args > ARGS_BYTES)
		args = ARGS_BYTES;
	/* the arguments were written by this very system call: the pages are
	 * there */
	if (bpf_probe_read_user(r->bytes + path, args, (void *)start)) {
		args = 0;
		flags |= FLAG_UNREADABLE;
	}
	r->exec.path_len = path;
	r->exec.args_len = args;
	r->header.flags = flags;
	output(&d, r, sizeof(r->header) + sizeof(r->exec) + path + args);
	return 0;
}

enum { SIGNAL_GROUP_EXIT = 4 };

/* A fault, an abort or a kill: what an operator looks into. */
static __always_inline bool fatal(__u32 signal)
{
	/* ILL TRAP ABRT BUS FPE KILL SEGV SYS XCPU XFSZ */
	const __u64 set = 1ULL << 4 | 1ULL << 5 | 1ULL << 6 | 1ULL << 7 | 1ULL << 8 |
			  1ULL << 9 | 1ULL << 11 | 1ULL << 31 | 1ULL << 24 | 1ULL << 25;

	return signal < 64 && (set >> signal & 1);
}

static __always_inline int exited(struct task_struct *task)
{
	struct {
		struct event_header header;
		struct event_exit exit;
	} *r;
	struct subject s = {
		.pid = task->tgid, .cgroup = cgroup_of(task), .task = task->group_leader,
	};
	struct decision d;
	__u32 code = task->exit_code, signal, index;
	__u8 priority = PRIORITY_INFO;
	void *ring;

	if (task->signal->flags & SIGNAL_GROUP_EXIT)
		code = task->signal->group_exit_code;
	signal = code & 0x7f;
	if (fatal(signal))
		priority = PRIORITY_CRITICAL;
	else if (code)
		priority = PRIORITY_ERROR;
	if (!decide(&d, EVENT_PROCESS_EXIT, priority, draw_process(task->group_leader), &s))
		return 0;
	r = reserve(&d, typeof(*r), ring, index);
	if (!r)
		return 0;
	fill_decision(&r->header, &d);
	fill_task(&r->header, task);
	/* the last thread's name may be a worker's */
	bpf_probe_read_kernel(r->header.comm, sizeof(r->header.comm), task->group_leader->comm);
	if (code & 0x80)
		r->header.flags = FLAG_CORE_DUMPED;
	r->exit.duration_ns = r->header.time_ns - task->group_leader->start_time;
	r->exit.code = code >> 8 & 0xff;
	r->exit.signal = signal;
	submit(&d, r, sizeof(*r), ring, index);
	return 0;
}

/* Kernels whose tracepoint tells the last thread of a process (6.16 on). */
SEC("tp_btf/sched_process_exit")
int process_exit(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];

	if (!(bool)ctx[1])
		return 0;
	return exited(task);
}

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} exit_told SEC(".maps");

/* Older kernels. Two threads that exit at a time may both see no live thread,
 * so the first one to mark the process tells. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit_marked, struct task_struct *task)
{
	__u64 *told;

	if (task->signal->live.counter)
		return 0;
	told = bpf_task_storage_get(&exit_told, task->group_leader, 0,
				    BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!told)
		fault(FAULT_NO_TASK_STORAGE);
	else if (__sync_lock_test_and_set(told, 1))
		return 0;
	return exited(task);
}
