//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Cgroups come and go: what attribution goes by. A cgroup is told with its path
 * before any process runs in it. Only the default hierarchy, whose ids the
 * other events carry.
 */
#include "tracer.h"

struct cgroup_record {
	struct event_header header;
	struct event_cgroup cgroup;
	char path[PATH_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct cgroup_record);
} cgroup_scratch SEC(".maps");

static __always_inline int changed(struct cgroup *cgroup, const char *path, __u16 kind)
{
	__u32 slot = kind == EVENT_CGROUP_REMOVE;
	struct task_struct *t = bpf_get_current_task_btf();
	struct cgroup_record *r;
	struct subject nobody = {}; /* not filtered by process: the tracer makes cgroups too */
	struct decision d;
	long n;

	if (cgroup->root->hierarchy_id)
		return 0;
	if (!decide(&d, kind, PRIORITY_CRITICAL, 0, &nobody))
		return 0;
	r = bpf_map_lookup_elem(&cgroup_scratch, &slot);
	if (!r) {
		fault(FAULT_NO_SCRATCH);
		charge_lost(&d);
		return 0;
	}
	fill_decision(&r->header, &d);
	fill_task(&r->header, t);
	r->header.cgroup_id = cgroup->kn->id;
	r->cgroup.level = cgroup->level;
	r->cgroup.reserved = 0;
	n = bpf_probe_read_kernel_str(r->path, sizeof(r->path), path);
	if (n <= 0)
		n = 1;
	if (n >= sizeof(r->path)) {
		n = sizeof(r->path);
		r->header.flags = FLAG_PATH_TRUNCATED;
	}
	n--;
	r->cgroup.path_len = n;
	output(&d, r, sizeof(r->header) + sizeof(r->cgroup) + (n & (PATH_BYTES - 1)));
	return 0;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_create, struct cgroup *cgroup, const char *path)
{
	return changed(cgroup, path, EVENT_CGROUP_CREATE);
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(cgroup_remove, struct cgroup *cgroup, const char *path)
{
	if (!cgroup->root->hierarchy_id)
		forget(cgroup->kn->id);
	return changed(cgroup, path, EVENT_CGROUP_REMOVE);
}

/* The tracer's own process as the host knows it, which getpid does not tell in a
 * pid namespace. Run once, by a test run; attached to nothing. */
SEC("raw_tp/sys_enter")
int self(void *ctx)
{
	return bpf_get_current_pid_tgid() >> 32;
}

/*
 * The whole ABI as one type, for the test that compares it with the Go side. The
 * map is used by no program and is never made.
 */
struct abi {
	struct event_header header;
	struct event_fork fork;
	struct event_exec exec;
	struct event_exit exit;
	struct event_network network;
	struct event_open open;
	struct event_cgroup cgroup;
	struct policy_row policy;
	struct cgroup_state cgroup_state;
	struct budget_share budget_share;
	struct group_rows group;
	struct valve valve;
	struct filters filters;
	struct filter_value filter_value;
	struct filter_number filter_number;
	struct filter_prefix filter_prefix;
	struct reader_state reader;
	enum event_kind kind;
	enum event_priority priority;
	enum event_flag flag;
	enum reader_mode mode;
	enum fault fault;
	enum row_flag row_flag;
	enum filter_ask filter_ask;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct abi);
} abi SEC(".maps");
