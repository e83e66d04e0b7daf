//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The decision of the probes on events that never happened, at a time that is told:
 * what a sampler is tried with. One test run decides a batch, in order. The table,
 * the groups, the valve and what is known of cgroups are as in the probes, and user
 * space fills them with the same code.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#include "abi.h"

char _license[] SEC("license") = "Dual BSD/GPL";

enum { TICK_NS = 4000000, BATCH = 16384 };

static volatile __u64 now_ns;

static __always_inline __u64 clock_ns(void) { return now_ns; }
static __always_inline __u64 clock_ticks(void) { return now_ns / TICK_NS; }

#include "policy.h"
#include "decide.h"

/* One event; the last two words are the answer. */
struct trial {
	__u64 time_ns;
	__u64 number; /* what its life drew; 0: a fresh draw */
	__u64 cgroup_id; /* 0: none */
	__u16 kind;
	__u8 priority;
	__u8 cpu;
	__u32 row; /* ROW_NONE: not decided */
	__u64 threshold;
	__u64 kept;
};

enum { ROW_NONE = ~0U };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BATCH);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct trial);
} trials SEC(".maps");

static long decide(__u32 i, void *unused)
{
	struct trial *e = bpf_map_lookup_elem(&trials, &i);
	struct cgroup_state *c = NULL;
	struct policy_row *row;
	struct valve *v;
	__u32 zero = 0, index;
	__u64 random;
	void *table;

	if (!e)
		return 1;
	e->row = ROW_NONE;
	now_ns = e->time_ns;
	table = bpf_map_lookup_elem(&policy, &zero);
	v = bpf_map_lookup_elem(&valve, &zero);
	if (!table || !v)
		return 1;
	if (e->cgroup_id)
		c = state_of(e->cgroup_id);
	index = row_of(e->kind * PRIORITIES + e->priority, c ? c->group : 0);
	row = bpf_map_lookup_percpu_elem(table, &index, e->cpu);
	if (!row)
		return 1;
	e->kept = keep(row, v, c, e->kind, e->number, &e->threshold, &random);
	e->row = index;
	return 0;
}

SEC("syscall")
int simulate(__u32 *count)
{
	bpf_loop(*count, decide, NULL, 0);
	return 0;
}
