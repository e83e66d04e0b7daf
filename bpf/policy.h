/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps that a decision goes by, the same for the probes and the simulator. */
#ifndef __POLICY_H__
#define __POLICY_H__

#include "abi.h"

struct table {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, POOLED_ROWS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct policy_row));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct table);
} policy SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct valve);
} valve SEC(".maps");

/* A group is named by its entry; 0 is no group. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct group_rows);
} groups SEC(".maps");

/* row_of gives the row of a class of a group, 0 being none. */
static __always_inline __u32 row_of(__u32 class, __u32 group)
{
	struct group_rows *g;
	__u16 row;

	if (!group)
		return class;
	g = bpf_map_lookup_elem(&groups, &group);
	if (!g)
		return class;
	row = g->row[class & (PROMOTED_ROW - 1)];
	return row ? row : class;
}

#endif
